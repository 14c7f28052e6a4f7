"""Folders of images: which images are found, and every fault told before training."""

import os
import shutil

import pytest
import torch
from PIL import Image

from bbframe.data.faults import FaultsError
from bbframe.data.packed_names import PackedNames
from bbframe.preprocessing import Preprocessing
from tests.data.helpers import build, write

FLAT = {"cat": 6, "dog": 7}
PARTED = {f"{part}/{name}": 3 for part in ("train", "val", "test") for name in ("cat", "dog")}


def load(root, **options):
    return build("image_folder", root=str(root), **options)


def names(data, part):
    root = data.parts[part].root
    return {os.path.relpath(data.source(part, i), root) for i in range(data.counts[part])}


def fault(root, **options):
    """The one-line message with which the folder is refused."""
    with pytest.raises(ValueError, match="data: ") as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
    return str(caught.value)


def told(data):
    return {what: list(names) for what, names in data.assumed.items()}


def test_class_folders_are_split_by_class(folder):
    data = load(folder(FLAT))
    assert data.class_names == ["cat", "dog"]
    assert data.counts == {"train": 9, "val": 2, "test": 2}
    found = [name for part in data.parts for name in names(data, part)]
    assert len(found) == len(set(found)) == 13
    for part in data.parts:
        assert {name.split("/")[0] for name in names(data, part)} == {"cat", "dog"}


def test_the_split_depends_on_its_own_seed_only(folder):
    root = folder({"cat": 20, "dog": 20})
    assert names(load(root, seed=1), "val") == names(load(root, seed=2), "val")
    assert names(load(root, split_seed=1), "val") != names(load(root), "val")


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_parts_in_folders_are_taken_as_they_are(folder, val):
    data = load(folder({place.replace("val", val): count for place, count in PARTED.items()}))
    assert data.counts == {"train": 6, "val": 6, "test": 6}
    assert names(data, "val") == {f"{val}/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    assert data.test_part == "test"


def test_without_a_val_folder_train_gives_some(folder):
    data = load(folder({"train/cat": 10, "train/dog": 10, "test/cat": 2, "test/dog": 2}), val_fraction=0.3)
    assert data.counts == {"train": 14, "val": 6, "test": 4}


def test_without_test_images_validation_stands_in(folder):
    root = folder({"train/cat": 10, "train/dog": 10, "val/cat": 2, "val/dog": 2})
    data = load(root)
    assert (data.counts, data.test_part) == ({"train": 20, "val": 4}, "val")
    assert torch.equal(next(iter(data.test_dataloader()))["image"], next(iter(data.val_dataloader()))["image"])
    data = load(root, test_fraction=0.2)
    assert (data.counts, data.test_part) == ({"train": 16, "val": 4, "test": 4}, "test")


def test_a_class_may_be_called_train(folder):
    assert load(folder({"train": 5, "bus": 5})).class_names == ["bus", "train"]


def test_only_visible_images_count_at_any_depth(folder):
    root = folder(FLAT)
    write(root / "cat" / "deep" / "er" / "x.JPG")
    write(root / "cat" / ".hidden.png")
    write(root / ".thumbnails" / "x.png")
    write(root / "cat" / ".thumbnails" / "x.png")
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "readme.md").write_text("hello")
    data = load(root)
    assert sum(data.counts.values()) == 14
    assert data.ignored == 1
    assert data.class_names == ["cat", "dog"]


def test_labels_follow_the_folders(folder):
    data = load(folder(FLAT))
    for batch in data.train_dataloader():
        for label, index in zip(batch["label"].tolist(), batch["index"].tolist(), strict=True):
            assert data.class_names[label] in data.source("train", index)


def test_size_and_crop_are_the_checkpoints(folder):
    root = folder(FLAT)
    given = Preprocessing(size=(14, 28), crop_mode="squash", interpolation="nearest")
    data = load(root, preprocessing=given)
    assert data.image_size == (14, 28)
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 14, 28)
    image = Image.open(data.source("val", 0)).resize((28, 14), Image.Resampling.NEAREST)
    assert data.picture("val", 0).permute(1, 2, 0).numpy().tobytes() == image.tobytes()
    assert load(root, preprocessing=given, image_size=[20, 12]).picture("val", 0).shape == (3, 20, 12)


def test_every_kind_of_file_trains_together(folder):
    root = folder({})
    for i, mode in enumerate(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"]):
        for name in ("cat", "dog"):
            write(root / name / "plain.png", shade=i)
            image = Image.new(mode, (9 + i, 30 - i), 1)
            image.save(root / name / f"{i}.{'tif' if mode == 'CMYK' else 'png'}")
    for num_channels in (1, 3):
        data = load(root, num_channels=num_channels)
        batches = [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
        assert {batch["image"].shape[1:] for batch in batches} == {(num_channels, 16, 16)}


def test_faults_of_the_root(tmp_path, folder):
    assert "does not exist; it must be the folder with your images" in fault(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is a file" in fault(tmp_path / "file")
    assert "no class folders; put the images of each class into a sub-folder" in fault(tmp_path)
    folder({"cat": 3})
    assert "only one class folder, 'cat'" in fault(tmp_path)


def test_images_without_class_folders(folder):
    assert "no class folders" in fault(folder({"": 3}))
    assert "it has train, val, but no train/ with one sub-folder a class" in fault(folder({"train": 3, "val": 3}))


def test_all_faults_are_told_at_once(folder):
    root = folder(PARTED | {"train/cow": 0, "val/pig": 1, "valid/cat": 1})
    message = fault(root, test_fraction=0.1)
    assert "val and valid both name the val images; keep one" in message
    assert "it has test/, so data.test_fraction=0.1 must be null" in message
    assert "val/ has classes that train/ lacks: pig" in message
    assert "in these folders: train/cow" in message


def test_a_class_without_images_is_named(folder):
    root = folder(FLAT | {"cow": 0})
    (root / "cow" / "notes.txt").write_text("hello")
    assert "no readable images (.apng .avif .bmp .dib .gif" in fault(root)
    assert "in these folders: cow" in fault(root)


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_too_small_to_split_trains_and_is_named(folder, count):
    root = folder(FLAT | {"cow": count})
    data = load(root)
    way = "add images or set data.test_fraction=0"
    what = f"classes with too few images to be in each of train, val, test ({way})"
    assert told(data) == {what: [f"'cow' ({count})"]}
    assert 2 in data.parts["train"].labels
    assert sum(data.counts.values()) == 13 + count
    if count == 2:
        assert load(root, test_fraction=0.0).counts["val"] == 3
    for place in ("cat", "dog"):
        for path in sorted((root / place).iterdir())[2:]:
            path.unlink()
    assert f"too few images to split into train, val, test ({way})" in fault(root)


def spoil(root, how):
    """Make root/cat/1.png unreadable, in a way that the header shows unless it is cut off."""
    path = root / "cat" / "1.png"
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"this is a letter", "cut": content[: len(content) // 2]}[how])
    return path


@pytest.mark.parametrize("how", ["empty", "text", "cut"])
def test_broken_files_are_named_before_training(folder, how):
    root = folder(FLAT)
    spoil(root, how)
    why = "is cut off" if how == "cut" else "not an image"
    assert f"unreadable: cat/1.png ({why}); repair or remove" in fault(root)
    data = load(root, on_error="skip")
    assert sum(data.counts.values()) == 12
    assert data.skipped == {str(root / "cat" / "1.png"): why}
    with pytest.raises(ValueError, match="data: cannot read"):
        load(root, on_error="skip", max_errors=0)


def test_the_details_name_every_broken_file(folder):
    root = folder({"cat": 12, "dog": 9})
    for i in range(7):
        (root / "cat" / f"{i}.png").write_bytes(b"")
    with pytest.raises(FaultsError, match=r"and 2 more; .*; all 7 are in error.txt of the run folder$") as caught:
        load(root)
    lines = [f"{root}: unreadable: cat/{i}.png (not an image)" for i in range(7)]
    assert caught.value.details.splitlines() == lines
    with pytest.raises(
        FaultsError, match=r"7 unreadable images, of which data.max_errors=6 .*; all 7 are in error"
    ) as caught:
        load(root, on_error="skip", max_errors=6)
    assert caught.value.details.splitlines() == [f"{root}/cat/{i}.png: not an image" for i in range(7)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_named(folder):
    root = folder(FLAT)
    (root / "cat" / "1.png").chmod(0)
    assert "1.png (permission denied)" in fault(root)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_cut_off_file_that_was_not_looked_at_ends_the_run_with_its_path(folder, num_workers, part):
    root = folder(PARTED)
    path = spoil_part(root, part)
    data = load(root, num_workers=num_workers, batch_size=2, verify=False)
    loader = data.train_dataloader() if part == "train" else data.val_dataloader()
    with pytest.raises(ValueError, match="cannot read") as caught:
        list(loader)
    assert str(path) in str(caught.value)
    assert "set data.on_error=skip" in str(caught.value)
    assert "\n" not in str(caught.value)


def spoil_part(root, part):
    path = root / part / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cut_off_file_is_skipped_and_counted(folder, num_workers):
    root = folder(PARTED)
    paths = {str(spoil_part(root, part)) for part in ("train", "val")}
    data = load(root, on_error="skip", num_workers=num_workers, batch_size=3, verify=False)
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert [len(batch["image"]) for batch in train] == [3, 3]  # another image in its place
    assert sorted(i for batch in val for i in batch["index"].tolist()) == [0, 2, 3, 4, 5]  # left out
    assert set(data.skipped) == paths
    assert all(set(batch) == {"image", "label", "index"} for batch in train + val)


def test_more_broken_files_than_allowed_end_the_run(folder):
    root = folder(PARTED)
    for part in ("train", "val"):
        spoil_part(root, part)
    data = load(root, on_error="skip", max_errors=1, batch_size=1, verify=False)
    list(data.train_dataloader())
    with pytest.raises(ValueError, match=r"2 unreadable images, of which data.max_errors=1 may be skipped"):
        list(data.val_dataloader())


def test_a_part_without_any_readable_image_ends_the_run(folder):
    root = folder(PARTED)
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:200])
    data = load(root, on_error="skip", verify=False)
    with pytest.raises(ValueError, match="none of 6 images can be read"):
        list(data.val_dataloader())


def test_a_fingerprint_says_whether_two_tests_are_of_the_same_images(folder, tmp_path_factory):
    """The place of the folder is no part of it; the images, their order and their classes are."""
    photos = folder({"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 2, "test/cat": 2, "test/dog": 3})
    data = load(photos)
    first = data.fingerprint("test", range(5))
    assert len(first) == 64
    moved = shutil.copytree(photos, tmp_path_factory.mktemp("elsewhere") / "photos")
    assert load(moved).fingerprint("test", range(5)) == first
    others = [data.fingerprint("test", order) for order in (range(4), [1, 0, 2, 3, 4])]
    data.parts["test"].labels[0] = 1
    assert len({first, *others, data.fingerprint("test", range(5))}) == 4


def test_a_part_costs_little_more_than_the_bytes_of_its_names(folder):
    """No object a file: a list of a million names is copied into every worker as soon as references are counted."""
    train = load(folder(FLAT)).parts["train"]
    assert isinstance(train.paths, PackedNames)
    assert train.labels.itemsize * len(train.labels) == 8 * len(train.paths)
    assert list(train.select([1, 0]).paths) == [train.paths[1], train.paths[0]]
    assert list(train.select([1, 0]).labels) == [train.labels[1], train.labels[0]]
