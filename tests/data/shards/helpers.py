"""Sets of shards for the tests, and what two data modules have in common."""

import io
import json
import tarfile

import torch
from PIL import Image

from bbframe.data.shards.shard_writer import write_shards
from tests.data.helpers import build


def sharded(data, kind, out, *, masks=False, shard_bytes=4000, **settings):
    """Write a data module into `out`; returns `out` as text."""
    write_shards(data, kind, out, masks=masks, shard_bytes=shard_bytes, **settings)
    return str(out)


def same_batches(one, other):
    """Whether two loaders give the same batches, to the bit."""
    for a, b in zip(one, other, strict=True):
        if a["index"].tolist() != b["index"].tolist() or len(a["image"]) != len(b["image"]):
            return False
        if not all(torch.equal(x, y) for x, y in zip(a["image"], b["image"], strict=True)):
            return False
        if "label" in a and not torch.equal(a["label"], b["label"]):
            return False
        for x, y in zip(a.get("target", ()), b.get("target", ()), strict=True):
            if x.keys() != y.keys() or not all(torch.equal(x[key], y[key]) for key in x):
                return False
    return True


def png(shade=0, size=(12, 10)):
    file = io.BytesIO()
    Image.new("L", size, shade % 256).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    """A tar as another program writes it: {name: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def labelled(count, start=0, **more):
    """Samples of two classes by a file .cls each."""
    return {
        name: content
        for i in range(start, start + count)
        for name, content in ((f"{i:06d}.png", png(i)), (f"{i:06d}.cls", f"{i % 2}".encode()))
    } | more


def boxed(count, start=0):
    """Samples with an object each, as the JSON beside them says."""
    found = {}
    for i in range(start, start + count):
        shown = {"box": [1, 2, 6, 8], "label": i % 2, "class": "ab"[i % 2]}
        found[f"{i:06d}.png"] = png(i)
        found[f"{i:06d}.json"] = json.dumps({"height": 10, "width": 12, "objects": [shown]}).encode()
    return found


def folder_from(place, **options):
    """An image_folder whose images come from shards."""
    return build("image_folder", shards=str(place), augment=None, **options)
