"""A set that is written from a data set gives the same batches, facts and messages as its source."""

import json
import os
import tarfile

import numpy as np
import pytest

from bbframe.data.copies import copy_groups
from bbframe.data.data_summary import summarise
from bbframe.data.shards import shard_writer
from bbframe.data.shards.shard_writer import write_shards
from tests.data.helpers import build, load_coco, write, write_coco
from tests.data.shards.helpers import folder_from, same_batches, sharded

CLASSES = {"cat": 12, "dog": 9, "owl": 8}


@pytest.fixture
def pets(folder, tmp_path):
    root = folder({f"pets/{name}": count for name, count in CLASSES.items()}) / "pets"
    write(root / "cat" / "deep" / "copy.png", shade=500)
    write(root / "dog" / "copy.png", shade=500)
    return build("image_folder", root=str(root), augment=None)


def read_back(name, masks=False, **options):
    return build(name, masks=masks, **options)


def alike(source, shards):
    assert source.counts == shards.counts
    assert source.class_names == shards.class_names
    assert source.preprocessing == shards.preprocessing
    for part, count in source.counts.items():
        assert source.fingerprint(part, range(count)) == shards.fingerprint(part, range(count))
    assert source.test_part == shards.test_part
    assert same_batches(source.train_dataloader(), shards.train_dataloader())
    assert same_batches(source.val_dataloader(), shards.val_dataloader())
    assert same_batches(source.test_dataloader(), shards.test_dataloader())


@pytest.mark.long
@pytest.mark.parametrize("name", ["digits", "digit_scenes"])
def test_data_sets_without_files_come_back_to_the_bit(name, tmp_path):
    small = {} if name == "digits" else {"train_scenes": 20, "val_scenes": 9, "test_scenes": 9}
    masks = name == "digit_scenes"
    source = build(name, masks=masks, **small)
    place = sharded(source, name, tmp_path / "set", masks=masks, shard_bytes=200_000)
    assert len(list((tmp_path / "set").glob("train-*.tar"))) > 0
    alike(build(name, masks=masks, **small), build(name, masks=masks, shards=place, **small))


def test_folders_of_images_come_back_with_names_and_bytes(pets, tmp_path):
    place = sharded(pets, "image_folder", tmp_path / "set")
    shards = folder_from(place)
    alike(pets, shards)
    images = pets.parts["val"]
    for index in range(pets.counts["val"]):
        assert shards.parts["val"].content(index) == (images.root / images.paths[index]).read_bytes()
        assert shards.parts["val"].name(index) == images.paths[index]
    ours, theirs = summarise(shards).counts(), summarise(pets).counts()
    assert ours == theirs
    assert ours["copies"] or ours["leaks"]
    assert copy_groups(shards.parts) == copy_groups(pets.parts)


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_masks_ids_and_categories_come_back(masks, tmp_path):
    write_coco(tmp_path, "train", 8)
    write_coco(tmp_path, "val", 4, categories=((7, "disc"), (2, "box")), seed=1)
    source = load_coco(tmp_path, "train", "val", masks=masks)
    place = sharded(source, "coco", tmp_path / "set", masks=masks, shard_bytes=6000)
    plain = {"num_workers": 0, "batch_size": 2, "min_size": None, "max_size": None, "augment": None}
    shards = build("coco", shards=place, masks=masks, **plain)
    alike(source, shards)
    for part in ("train", "val"):
        assert shards.part_category_ids(part) == source.part_category_ids(part)
        ids = [shards.image_id(part, i) for i in range(shards.counts[part])]
        assert ids == [source.image_id(part, i) for i in range(source.counts[part])]
        assert all(type(one) is int for one in ids)
    assert shards.category_ids == source.category_ids


def test_a_head_with_masks_needs_a_set_with_masks(tmp_path):
    write_coco(tmp_path, "train", 8)
    place = sharded(load_coco(tmp_path), "coco", tmp_path / "set")
    with pytest.raises(ValueError, match=r"holds no masks; write it with `bbframe data shard ... --masks`"):
        build("coco", shards=place, masks=True)


def test_a_set_for_another_task_is_refused(pets, tmp_path):
    place = sharded(pets, "image_folder", tmp_path / "set")
    with pytest.raises(ValueError, match=r"holds image_folder, for task=classification, .*; type data=image_folder"):
        build("coco", shards=place)


def test_the_same_images_give_the_same_bytes_with_any_number_of_processes(pets, tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        write_shards(pets, "image_folder", tmp_path / name, shard_bytes=4000, workers=workers)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(names) > 6
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
    write_shards(pets, "image_folder", tmp_path / "three", shard_bytes=4000, seed=1)
    assert (tmp_path / "three" / names[-3]).read_bytes() != (tmp_path / "one" / names[-3]).read_bytes()


def test_tars_are_plain_samples_of_webdataset(pets, tmp_path):
    sharded(pets, "image_folder", tmp_path / "set", shard_bytes=10**9)
    with tarfile.open(tmp_path / "set" / "val-000000.tar") as tar:
        members = tar.getmembers()
        facts = json.loads(tar.extractfile("000000000.json").read())
    assert [m.name for m in members[:4]] == ["000000000.png", "000000000.json", "000000001.png", "000000001.json"]
    assert {(m.mtime, m.uid, m.gid, m.mode) for m in members} == {(0, 0, 0, 0o644)}
    label = int(pets.parts["val"].labels[0])
    assert facts == {"name": pets.parts["val"].paths[0], "label": label, "class": pets.class_names[label]}
    assert len(members) == 2 * pets.counts["val"]


def test_training_images_are_mixed_and_others_keep_their_order(pets, tmp_path):
    shards = folder_from(sharded(pets, "image_folder", tmp_path / "set"))
    for part, rising in (("train", False), ("val", True)):
        index = shards.parts[part].index
        assert bool((np.diff(index.shard.astype(int)) >= 0).all()) == rising


def test_an_interrupted_set_is_completed_and_keeps_what_was_written(pets, tmp_path, monkeypatch):
    write = shard_writer.write_shard
    written = []

    def stop(job, part, name, which):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(name)
        write(job, part, name, which)

    monkeypatch.setattr(shard_writer, "write_shard", stop)
    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        write_shards(pets, "image_folder", out, shard_bytes=4000)
    assert not (out / "shards.json").exists()
    with pytest.raises(ValueError, match=r"beginning of a set of shards"):
        folder_from(out)
    with pytest.raises(ValueError, match="holds the beginning of a set of other images; remove it"):
        write_shards(pets, "image_folder", out, shard_bytes=9000)
    before = {name: os.stat(out / name).st_mtime_ns for name in written}
    monkeypatch.setattr(shard_writer, "write_shard", write)
    write_shards(pets, "image_folder", out, shard_bytes=4000)
    assert {name: os.stat(out / name).st_mtime_ns for name in written} == before
    write_shards(pets, "image_folder", tmp_path / "whole", shard_bytes=4000)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_nothing_is_overwritten(pets, tmp_path):
    out = tmp_path / "set"
    sharded(pets, "image_folder", out)
    with pytest.raises(ValueError, match="holds a set of shards already; remove it, or give another name"):
        sharded(pets, "image_folder", out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is there already; give the name of a new folder"):
        sharded(pets, "image_folder", tmp_path / "other")


def test_shards_are_written_from_shards(pets, tmp_path):
    first = folder_from(sharded(pets, "image_folder", tmp_path / "one"))
    alike(pets, folder_from(sharded(first, "image_folder", tmp_path / "two", shard_bytes=9000)))


def test_fixes_of_the_source_fit_the_shards(pets, tmp_path):
    fixes = tmp_path / "fixes.csv"
    image, relabelled = pets.parts["train"].paths[0], pets.parts["val"].paths[-1]
    fixes.write_text(f"image,action,suggestion\n{image},exclude,\n{relabelled},relabel,cat\n")
    place = sharded(pets, "image_folder", tmp_path / "set")
    source = build("image_folder", root=str(pets.parts["train"].root), augment=None, exclude=str(fixes))
    shards = folder_from(place, exclude=str(fixes))
    alike(source, shards)
    assert source.exclusion.counts() == shards.exclusion.counts()


def test_a_place_beside_shards_is_refused():
    with pytest.raises(ValueError, match=r"data: root='x' must be null beside data.shards"):
        build("image_folder", root="x", shards="y")
    with pytest.raises(ValueError, match=r"data: train_annotations='z' must be null beside data.shards"):
        build("coco", train_images="x", train_annotations="z", shards="y")


def test_a_folder_of_shards_given_as_the_root_says_what_to_type(pets, tmp_path):
    place = sharded(pets, "image_folder", tmp_path / "set")
    with pytest.raises(ValueError, match=r"is a set of shards; type data.shards=.*set in the place of data.root"):
        build("image_folder", root=place)
