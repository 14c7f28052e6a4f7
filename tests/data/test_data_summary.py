"""What a data set tells cheaply: counts, copies, leaks, sizes, boxes, and where it did not look."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from bbframe.data import copies
from bbframe.data.boxes.box_sizes import below_stride, buckets
from bbframe.data.copies import NotLooked, copy_groups
from bbframe.data.data_summary import summarise
from tests.data.helpers import build, load_coco, write_coco


def text(data, **settings):
    return dict(summarise(data, **settings).lines())


def test_the_digits_have_no_copies_and_cost_a_run_little():
    data = build()
    summarise(data)
    started = time.process_time()
    found = summarise(data)
    assert time.process_time() - started < 0.5
    assert found.counts() == {
        "images": {"train": 1259, "val": 269, "test": 269},
        "classes": 10,
        "imbalance": 1.057,
        "missing_classes": {},
        "copies": {},
        "leaks": {},
        "conflicts": 0,
    }
    lines = dict(found.lines())
    assert lines["classes"].startswith("train has 122 to 129 images a class")
    assert lines["copies"].startswith("no two images are equal, byte by byte")


def test_copies_leaks_and_conflicts_are_counted_by_content(folder):
    root = folder({"train/cat": 6, "train/doggy": 5, "val/cat": 3, "test/cat": 3, "test/doggy": 3})
    shutil.copy(root / "train/cat/0.png", root / "train/cat/copy of.png")
    shutil.copy(root / "train/cat/1.png", root / "train/doggy/called dog.png")
    shutil.copy(root / "train/doggy/2.png", root / "test/doggy/other name.jpg")  # named by another format
    shutil.copy(root / "train/doggy/2.png", root / "test/doggy/again.png")
    found = summarise(build("image_folder", root=str(root)))
    assert found.copies_within == {"train": 2, "test": 1}
    assert found.leaks == {"train/test": 1}
    assert found.conflicts == 1
    assert found.missing == {"val": ["doggy"]}
    assert found.imbalance == pytest.approx(7 / 6)
    said = dict(found.lines())
    assert "LEAK: 1 train images are test images too" in said["copies"]
    assert "train/doggy/2.png = test/doggy/other name.jpg" in said["copies"]
    assert said["classes"] == "val has none of 1 classes: doggy"
    assert said["pictures"] == "20x12 pixels before they are resized"


def test_files_of_one_size_are_compared_byte_by_byte(tmp_path, folder):
    root = folder({"a": 6, "bb": 6}, suffix="bmp")  # bitmaps of one size
    assert copy_groups(build("image_folder", root=str(root)).parts) == []
    first = (root / "a/0.bmp").read_bytes()
    (root / "bb/0.bmp").write_bytes(first[:-1] + bytes([first[-1] ^ 1]))  # differs in the last byte alone
    assert copy_groups(build("image_folder", root=str(root)).parts) == []
    (root / "bb/0.bmp").write_bytes(first)
    assert [len(group) for group in copy_groups(build("image_folder", root=str(root)).parts)] == [2]


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("MOST_LOOKED_AT", 100, "there are 1,797 images, more than 100"),
        ("MOST_SECONDS", -1.0, "it took more than -1 s"),
    ],
)
def test_what_was_not_looked_at_is_said_with_the_command_that_does(limit, value, said, monkeypatch):
    monkeypatch.setattr(copies, limit, value)
    found = summarise(build())
    assert found.copies is None
    assert dict(found.lines())["copies"] == (
        f"were not looked for: {said}; `bbframe data` with the same arguments looks"
    )
    assert found.counts()["leaks"] is None


def test_it_does_not_read_more_than_a_run_can_spare(folder, monkeypatch):
    data = build("image_folder", root=str(folder({"a": 6, "bb": 6}, suffix="bmp")))
    monkeypatch.setattr(copies, "MOST_READ_BYTES", 1000)
    with pytest.raises(NotLooked, match="would have to be read"):
        copy_groups(data.parts)


def test_files_that_vanish_are_no_failure(folder):
    root = folder({"a": 6, "bb": 6}, suffix="bmp")
    data = build("image_folder", root=str(root))
    shutil.rmtree(root / "a")
    assert copy_groups(data.parts) == []
    assert len(summarise(data).sizes) == 6


def test_boxes_are_counted_by_size_and_below_the_stride_as_the_network_sees_them(tmp_path):
    write_coco(tmp_path)
    data = load_coco(tmp_path)
    found = summarise(data, stride=8)
    boxes = sum(part["boxes"] for part in found.boxes.values())
    assert boxes == sum(part["small"] for part in found.boxes.values()) == 10  # the crowd does not count
    tiny = sum(part["below_stride"] for part in found.boxes.values())
    sides = np.concatenate([images.boxes[~images.crowd] for images in data.parts.values()])
    assert tiny == ((sides[:, 2:] - sides[:, :2]).min(1) < 8).sum() > 0
    twice = load_coco(tmp_path, min_size=60)  # twice as large
    assert sum(part["below_stride"] for part in summarise(twice, stride=8).boxes.values()) == 0
    assert "below_stride" not in summarise(data).boxes["train"]
    images = twice.parts["train"]
    assert below_stride(twice.options, images, 1000).all()


def test_cocos_buckets_share_no_box():
    sides = np.array([[31.9, 31.9], [32, 32], [95.9, 96], [96, 96], [1000, 1]])
    assert buckets(sides) == {"small": 2, "medium": 2, "large": 1}
