"""Write the images of a data module as litdata's chunks, by its own writer."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.data_module import DataModule
from bbframe.data.shards.litdata_shards import LITDATA_INDEX, import_litdata
from bbframe.data.shards.set_file import SetFile
from bbframe.data.shards.shard_samples import SampleNote
from bbframe.data.shards.shard_writer import Tell, begin_set, finish_set, mixed_order
from bbframe.data.shards.written_index import noted, write_index


def write_litdata(
    data: DataModule,
    kind: str,
    out: Path,
    *,
    masks: bool = False,
    shard_bytes: int = 256 * 10**6,
    seed: int = 0,
    tell: Tell = lambda done, of: None,
) -> SetFile:
    """As `write_shards`, a folder of chunks for each part, whose samples are {"image": bytes, "json": bytes}.

    An interrupted set is begun anew.
    """
    import_litdata()
    from litdata.streaming.writer import BinaryWriter

    owner, sources, _ = begin_set(data, kind, out, ("litdata", shard_bytes, seed), masks)
    done, entries = 0, {}
    for part, source in sources.items():
        folder = out / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        writer = BinaryWriter(str(folder), chunk_bytes=shard_bytes)
        notes: list[tuple[int, SampleNote]] = []
        order = mixed_order(data.counts[part], part, seed)
        for number, index in enumerate(order.tolist()):
            sample = source.sample(index)
            writer.add_item(number, {"image": sample.image, "json": sample.json()})
            notes.append((number, sample.note()))
            tell(done := done + 1, sum(data.counts.values()))
        writer.done()
        writer.merge()
        chunks = json.loads((folder / LITDATA_INDEX).read_bytes())["chunks"]
        plan = np.split(order, np.cumsum([chunk["chunk_size"] for chunk in chunks])[:-1])
        shards = [_entry(folder / chunk["filename"], chunk["chunk_size"]) for chunk in chunks]
        starts = np.cumsum([0, *map(len, plan)])
        sides = [noted(notes[start : start + len(which)]) for start, which in zip(starts, plan, strict=False)]
        entries[part] = write_index(data, out, part, plan, source, sides, shards)
    return finish_set(data, kind, out, owner, entries, masks, "litdata")


def _entry(path: Path, images: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = (
            hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
        )
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest(), "images": images}
