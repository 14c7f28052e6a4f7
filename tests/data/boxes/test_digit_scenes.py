"""Scenes of digits: the same everywhere, their boxes tight, their parts apart."""

import hashlib

import numpy as np
import pytest
import torch

from bbframe.data.boxes.digit_scenes import INK, OVERLAP, enlarged, intersection_over_smaller
from tests.data.helpers import build

STONE = "81e0482772ada453"
FEW = {"train_scenes": 60, "val_scenes": 20, "test_scenes": 30}


def scenes(masks=True, **options):
    return build("digit_scenes", masks=masks, **FEW | options)


def test_the_default_is_as_documented():
    data = build("digit_scenes")
    assert data.counts == {"train": 600, "val": 128, "test": 256}
    assert data.image_size == (96, 96)
    assert data.class_names == [str(digit) for digit in range(10)]
    batch = next(iter(data.train_dataloader()))
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 96, 96)] * 8
    objects = np.diff(data.parts["train"].offsets)
    assert 0.01 < (objects == 0).mean() < 0.06
    assert (objects.min(), objects.max()) == (0, 5)
    share = np.bincount(data.parts["train"].classes, minlength=10) / len(data.parts["train"].classes)
    assert (abs(share - 0.1) < 0.03).all()


def test_the_scenes_are_written_in_stone():
    """A change of these would make old results incomparable."""
    data = scenes(seed=3)
    digest = hashlib.sha256()
    for part in data.parts.values():
        digest.update(part.pixels[:10].tobytes())
        digest.update(part.boxes[:20].astype("<f4").tobytes() + part.classes[:20].astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == STONE


def test_the_runs_seed_changes_no_scene_but_the_scenes_seed_does():
    first, second, other = scenes(seed=1), scenes(seed=2), scenes(scene_seed=1)
    for part in first.parts:
        assert np.array_equal(first.parts[part].pixels, second.parts[part].pixels)
        assert not np.array_equal(first.parts[part].pixels, other.parts[part].pixels)


def test_more_scenes_begin_with_the_same():
    few, many = scenes().parts["val"], scenes(val_scenes=25).parts["val"]
    assert np.array_equal(few.pixels, many.pixels[:20])


def test_the_parts_show_different_scans():
    data, digits = scenes(), build()
    for part in data.parts:
        assert set(data.parts[part].pasted[:, 0].tolist()) <= set(digits.parts[part].indices)


def test_boxes_are_tight_around_the_ink():
    data = scenes()
    for part in data.parts:
        for i in range(data.counts[part]):
            target = data.parts[part].target(i, True)
            for box, mask, area in zip(target["boxes"].tolist(), target["masks"], target["area"], strict=True):
                rows, columns = mask.nonzero().unbind(1)
                assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert area == mask.sum()


def test_ink_is_brighter_than_the_ground():
    part = scenes().parts["train"]
    for i in range(len(part.labels)):
        masks = part.target(i, True)["masks"].numpy().astype(bool)
        ground = ~masks.any(0)
        for mask in masks:
            assert part.pixels[i][mask].mean() > part.pixels[i][ground].mean() + 15


def test_labels_are_those_of_the_scans():
    part, digits = scenes().parts["test"], build()
    labels = dict(zip(digits.parts["test"].indices, digits.parts["test"].labels, strict=True))
    assert part.classes.tolist() == [labels[scan] for scan in part.pasted[:, 0].tolist()]
    assert np.array_equal(enlarged(7, 8) >= INK, np.asarray(digits.parts["val"].read(0)) >= INK)


def test_digits_overlap_only_so_much():
    part = scenes().parts["train"]
    shares = []
    for i in range(len(part.labels)):
        boxes = part.target(i, False)["boxes"].tolist()
        shares += [intersection_over_smaller(one, other) for n, one in enumerate(boxes) for other in boxes[:n]]
    assert 0 < max(shares) <= OVERLAP


def test_overlap_is_the_share_of_the_smaller_box():
    assert intersection_over_smaller([0, 0, 10, 10], [5, 5, 9, 9]) == 1
    assert intersection_over_smaller([0, 0, 10, 10], [8, 0, 12, 5]) == 0.5
    assert intersection_over_smaller([0, 0, 10, 10], [10, 0, 12, 5]) == 0


@pytest.mark.parametrize(("image_size", "canvas"), [(50, (50, 50)), ([40, 130], (40, 130))])
def test_sizes_and_numbers_can_be_chosen(image_size, canvas):
    data = scenes(image_size=image_size, num_digits=[2, 3], digit_size=[10, 12])
    assert data.image_size == canvas
    part = data.parts["train"]
    assert data.picture("train", 0).shape == (3, *canvas)
    assert set(np.diff(part.offsets).tolist()) <= {0, 2, 3}
    sides = part.boxes[:, 2:] - part.boxes[:, :2]
    assert sides.max() <= 12
    assert (part.boxes >= 0).all()
    assert (part.boxes[:, 2:] <= [canvas[1], canvas[0]]).all()


def test_targets_are_in_pixels_of_the_picture():
    data = scenes(min_size=192)
    assert data.picture("val", 1).shape == (3, 192, 192)
    target, given = data.target("val", 1), data.parts["val"].target(1, False)
    assert torch.equal(target["boxes"], 2 * given["boxes"])
    assert target["scale"].tolist() == [2, 2]
    assert torch.equal(target["masks"], data.parts["val"].target(1, True)["masks"])  # of the original
    assert torch.equal(target["area"], given["area"])


def test_a_scene_has_a_name():
    assert scenes().source("val", 3) == "val scene 3"


def test_a_cache_holds_the_same_scenes_and_is_read(tmp_path, monkeypatch):
    plain, first = scenes(), scenes(cache=str(tmp_path / "new"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["test.npz", "train.npz", "val.npz"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "new" / "val.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode, "others may read it"
    monkeypatch.setattr("bbframe.data.boxes.digit_scenes.scenes", None)
    second = scenes(cache=str(tmp_path / "new"))
    for part in plain.parts:
        for name, value in vars(plain.parts[part]).items():
            for data in (first, second):
                assert np.array_equal(getattr(data.parts[part], name), value)


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "text", "other", "pickled", "lacking"])
def test_a_bad_cache_is_made_anew(how, tmp_path):
    plain = scenes()
    scenes(cache=str(tmp_path), scene_seed=5 if how == "other" else 0)
    path = tmp_path / "val.npz"
    raw = bytearray(path.read_bytes())
    if how == "flipped":
        raw[len(raw) // 2] ^= 1
    spoiled = {"empty": b"", "cut": raw[: len(raw) // 2], "text": b"hello", "flipped": raw}
    if how in spoiled:
        path.write_bytes(spoiled[how])
    elif how == "pickled":
        np.savez(path, key=np.array([{}], object))
    elif how == "lacking":
        np.savez(path, key=np.array("x"))
    again = scenes(cache=str(tmp_path))
    assert np.array_equal(again.parts["val"].pixels, plain.parts["val"].pixels)
    with np.load(path) as file:
        assert np.array_equal(file["pixels"], plain.parts["val"].pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.npz", "train.npz", "val.npz"]
