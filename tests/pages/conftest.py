"""The folder in which a page's blocks run: photographs, annotations, runs that are there already, and a Hub."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download
from PIL import Image

from bbframe import registry
from bbframe.app import train
from bbframe.data.images.digits import scans
from tests.data.helpers import write_coco
from tests.hub_server import Hub

CLASSES = {"daisy": 3, "rose": 7, "tulip": 5}  # a name for a digit, whose scans are its photographs
TINY = ["backbone=convnextv2_atto", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,16,24,32]"]
SHORT = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=64"]
# the checkpoints that the pages load, by the choice of the group `backbone` that they belong to; random weights
PUBLISHED = {
    "convnextv2_atto": "facebook/convnextv2-atto-1k-224",
    "convnextv2_tiny": "facebook/convnextv2-tiny-1k-224",
    "resnet18": "microsoft/resnet-18",
    "resnet50": "microsoft/resnet-50",
    "dinov2_small": "facebook/dinov2-small",
    "swin_tiny": "microsoft/swin-tiny-patch4-window7-224",
}


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A folder with photos/ (three classes), coco/ and VOC2012/, which each page gets a copy of."""
    place = tmp_path_factory.mktemp("pages")
    pixels, labels = scans()
    for name, digit in CLASSES.items():
        (place / "photos" / name).mkdir(parents=True)
        for index in itertools.islice((i for i, label in enumerate(labels) if label == digit), 24):
            picture = Image.fromarray(pixels[index]).convert("RGB").resize((72, 64), Image.Resampling.BICUBIC)
            picture.save(place / "photos" / name / f"{index}.jpg", quality=95)
    for part in ("train", "val"):
        write_coco(place / "coco", part, 12, size=(96, 72), seed=len(part))
    _write_voc(place / "VOC2012")
    return place


def _write_voc(folder):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    names = [f"{i:06}" for i in range(8)]
    for name in names:
        Image.new("RGB", (96, 72), (int(name) * 20, 90, 160)).save(folder / "JPEGImages" / f"{name}.jpg")
        box = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
        sizes = "<size><width>96</width><height>72</height><depth>3</depth></size>"
        objects = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
        text = f"<annotation><filename>{name}.jpg</filename>{sizes}{objects}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    for part, chosen in {"train": names[:6], "val": names[6:]}.items():
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(chosen) + "\n")


@pytest.fixture(scope="session")
def finished(template, tmp_path_factory):
    """The folder of runs that were there before a page is read, made when one is asked for: finished(name)."""
    home = tmp_path_factory.mktemp("finished")
    scenes = ["data.train_scenes=16", "data.val_scenes=8", "data.test_scenes=8", "data.batch_size=8"]
    orders = {
        "outputs/classification/run0": [*SHORT],
        "outputs/classification/run1": [*SHORT, "seed=1"],
        "outputs/detection/run0": ["task=detection", *SHORT[:2], *scenes, "head.channels=32"],
        "outputs/classification/sweep0": ["-m", *SHORT, "trainer.limit_train_batches=2", "seed=1,2"],
    }

    def folder(name: str) -> Path:
        if not (home / name).exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(home)
                where = f"hydra.{'sweep' if 'sweep' in name else 'run'}.dir={name}"
                assert train.main([*orders[name], *TINY, where]) == 0
        return home / name

    return folder


@pytest.fixture
def place(template, tmp_path, monkeypatch):
    """A copy of the template, as the current folder; parts that a page registers end with it."""
    shutil.copytree(template, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    before, plugins = set(sys.modules), dict(registry._plugins)
    yield tmp_path / "place"
    for key in [key for key, part in registry._parts.items() if part.plugin and part.plugin not in plugins]:
        del registry._parts[key]
    registry._plugins.clear()
    registry._plugins.update(plugins)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The files of the checkpoints that pages load, made on demand: published(choice) -> {name: bytes}."""
    from bbframe.app.composition import composition, plain_data
    from bbframe.factory import make_backbone
    from bbframe.run.configuration import parse_configuration

    kept: dict[str, dict[str, bytes]] = {}

    def files(choice: str) -> dict[str, bytes]:
        if choice not in kept:
            folder = tmp_path_factory.mktemp(choice)
            with composition() as compose:
                plan = parse_configuration(plain_data(compose, [f"backbone={choice}"])).backbone
            make_backbone(plan).save_pretrained(folder)
            kept[choice] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return kept[choice]

    return files


@pytest.fixture
def hub(published, monkeypatch, tmp_path):
    """A Hub on the loopback; `hub.offer(text)` publishes the checkpoints that a text names."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)

        def offer(text: str) -> None:
            for choice, name in PUBLISHED.items():
                named = name in text or ("retrained=true" in text and choice in text) or "rank" in text
                if named and name not in server.repositories and (name in text or choice in text):
                    server.publish(name, published(choice))

        server.offer = offer  # type: ignore[attr-defined]
        yield server
