"""Tars that other programs wrote, and sets that are broken: read as they are, or refused in one line."""

import json

import pytest

from tests.data.helpers import build
from tests.data.shards.helpers import boxed, folder_from, labelled, png, sharded, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "tars"


def test_numbers_beside_images_are_labels(place):
    write_tar(place / "train-0.tar", labelled(20))
    write_tar(place / "train-1.tar", labelled(10, 20))
    write_tar(place / "validation-0.tar", labelled(6))
    data = folder_from(place)
    assert data.class_names == ["0", "1"]
    assert data.counts == {"train": 30, "val": 6}
    assert data.parts["train"].labels.tolist() == [i % 2 for i in range(30)]
    assert data.parts["train"].read(21).getpixel((0, 0)) == 21
    assert data.parts["train"].name(21) == "train-1.tar/000021.png"
    assert sum(len(batch["label"]) for batch in data.train_dataloader()) == 28


def test_a_second_start_reads_the_index_that_the_first_has_kept(place, monkeypatch):
    write_tar(place / "train-0.tar", labelled(20))
    first = folder_from(place)
    monkeypatch.setattr("bbframe.data.shards.foreign_shards.TarScan", None)
    again = folder_from(place)
    assert again.parts["train"].labels.tolist() == first.parts["train"].labels.tolist()
    write_tar(place / "train-0.tar", labelled(24))
    with pytest.raises(TypeError):  # it must be looked through anew
        folder_from(place)


def words(count, suffix, told):
    found = {}
    for i in range(count):
        found[f"deep/er/{i}.jpg.png"] = png(i)
        found[f"deep/er/{i}.{suffix}"] = told(["owl", "cat"][i % 2]).encode()
    return found


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        ("cls", str),
        ("txt", lambda word: f"{word}\n"),
        ("json", lambda word: json.dumps({"class": word})),
        ("json", lambda word: json.dumps({"label": ["cat", "owl"].index(word), "class_name": word})),
    ],
)
def test_classes_may_be_words(place, suffix, told):
    write_tar(place / "a.tar", words(20, suffix, told))
    data = folder_from(place)
    assert data.class_names == ["cat", "owl"]
    assert sum(data.counts.values()) == 20
    assert set(data.counts) == {"train", "val", "test"}


def test_objects_are_read_as_they_are_written(place):
    write_tar(place / "train-0.tar", boxed(12))
    write_tar(place / "val-0.tar", boxed(4))
    plain = {"num_workers": 0, "batch_size": 2, "min_size": None, "max_size": None, "augment": None}
    data = build("coco", shards=str(place), **plain)
    assert data.class_names == ["a", "b"]
    assert data.target("val", 1)["boxes"].tolist() == [[1, 2, 6, 8]]
    assert data.target("val", 1)["labels"].tolist() == [1]
    assert data.target("val", 1)["area"].tolist() == [30]
    assert len(list(data.train_dataloader())) == 6


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (labelled(8, **{"9.png": png()}), r"samples without a label: a.tar/9.png .*; repair or remove them, or set"),
        (labelled(8, **{"9.cls": b"1"}), r"samples without an image: a.tar/9"),
        (labelled(8, **{"9.png": png(), "9.cls": b"cat"}), r"labels that are numbers in some samples and words"),
        (words(8, "txt", lambda word: f"{word}{id(word)}"), None),
        ({f"{i}.{s}": png() if s == "png" else f"caption {i}".encode() for i in range(8) for s in ("png", "txt")},
         r"8 labels of 8 images, such as 'caption 0', which look like captions"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tars_is_said_in_one_line(place, members, message):
    write_tar(place / "a.tar", members)
    if message is None:
        assert sum(folder_from(place).counts.values()) == 8
        return
    with pytest.raises(ValueError, match=message) as caught:
        folder_from(place)
    assert "\n" not in str(caught.value)


def test_samples_without_a_label_are_skipped_and_counted(place):
    write_tar(place / "a.tar", labelled(20, **{"97.png": png(), "98.png": png()}))
    for _ in range(2):  # from the tar, then from the kept index
        data = folder_from(place, on_error="skip")
        assert sorted(data.skipped) == ["a.tar/97.png", "a.tar/98.png"]
        assert sum(data.counts.values()) == 20
    with pytest.raises(ValueError, match=r"2 unreadable images, of which data.max_errors=1 may be skipped"):
        folder_from(place, on_error="skip", max_errors=1)
    with pytest.raises(ValueError, match="samples without a label"):
        folder_from(place)


def test_a_tar_that_breaks_off_is_named(place):
    write_tar(place / "a.tar", labelled(20))
    write_tar(place / "b.tar", labelled(20, 20))
    content = (place / "b.tar").read_bytes()
    (place / "b.tar").write_bytes(content[: 10 * 2048 + 700])
    with pytest.raises(ValueError, match=r"tars that are absent or not whole: b.tar"):
        folder_from(place)
    assert 26 <= sum(folder_from(place, on_error="skip").counts.values()) <= 30


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content[: 10 * 2048], "cut off at byte 20480"),
        (lambda content: content[: 10 * 2048 + 200], "cut off at byte 20680"),
        (lambda content: content[: 10 * 2048] + b"x" * 512 + content[10 * 2048 + 512 :], "damaged at byte 20480"),
        (lambda content: content[: 10 * 2048] + bytes(512) + content[10 * 2048 + 512 :], "goes on behind its end"),
        (lambda content: content + content, "goes on behind its end at byte 40960, as tars do that cat has joined"),
        (lambda content: content[: 20 * 2048], "cut off at byte 40960"),  # without the mark of its end
    ],
)
def test_a_tar_that_ends_too_soon_is_never_taken_for_a_whole_one(place, damage, why):
    write_tar(place / "a.tar", labelled(20))
    write_tar(place / "b.tar", labelled(20, 20))
    (place / "b.tar").write_bytes(damage((place / "b.tar").read_bytes()))
    with pytest.raises(ValueError, match=rf"tars that are absent or not whole: b.tar \({why}"):
        folder_from(place)
    assert list(folder_from(place, on_error="skip").skipped) == ["b.tar"]


def test_broken_images_are_told_before_training(place):
    write_tar(
        place / "a.tar",
        labelled(20, **{"97.png": png(size=(90, 90))[:60], "97.cls": b"1", "98.png": b"x", "98.cls": b"0"}),
    )
    with pytest.raises(ValueError, match=r"unreadable: a.tar/97.png \(is cut off\), a.tar/98.png"):
        folder_from(place)
    assert sorted(folder_from(place, on_error="skip").skipped) == ["a.tar/97.png", "a.tar/98.png"]
    assert sum(folder_from(place, verify=False).counts.values()) == 22


def test_what_an_earlier_start_left_out_is_looked_at_anew_with_other_options(place):
    write_tar(place / "a.tar", labelled(20, **{"97.png": png(size=(90, 90)), "97.cls": b"1"}))
    assert list(folder_from(place, on_error="skip", max_pixels=1000).skipped) == ["a.tar/97.png"]
    assert not folder_from(place, on_error="skip").skipped


def test_what_follows_the_end_of_a_tar_may_be_zeros(place):
    write_tar(place / "a.tar", labelled(20))
    with (place / "a.tar").open("ab") as file:
        file.write(bytes(3 * 2**20))
    assert sum(folder_from(place).counts.values()) == 20


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n0.0.png": png(), "n0.0.cls": b"0", "n0.1.png": png(), "n0.1.cls": b"0"},
         r"samples of several images: a.tar/n0 \(n0.0.png and n0.1.png have one name, which ends at its first dot"),
        ({"n.png": png(), "n.jpg": png(), "n.cls": b"0"}, "samples of several images: a.tar/n"),
        ({"n.png": png(), "n.a.cls": b"0", "n.b.cls": b"1"}, r"of two labels: a.tar/n \(two files .cls differ"),
        ({"n.png": png(), "n.cls": b"-1"}, r"samples without a label: a.tar/n.png \(label=-1 must be a number from 0"),
        ({"n.png": png(), "n.json": b'{"label": -1}'}, r"label=-1 must be a number from 0"),
    ],
)  # fmt: skip
def test_a_sample_is_one_image_of_one_class(place, more, message):
    write_tar(place / "a.tar", labelled(20, **more))
    with pytest.raises(ValueError, match=message):
        folder_from(place)


def test_a_mask_beside_an_image_is_not_the_image(place):
    found = {}
    for i in range(20):
        found |= {f"{i}.mask.png": png(255), f"{i}.png": png(i), f"{i}.json": json.dumps({"class": i % 2}).encode()}
    write_tar(place / "train.tar", found)
    write_tar(place / "val.tar", labelled(4))
    data = folder_from(place)
    assert data.parts["train"].read(7).getpixel((0, 0)) == 7
    assert data.parts["train"].labels.tolist() == [i % 2 for i in range(20)]


def test_words_that_are_not_utf8_stay_apart(place):
    found = {}
    for i in range(20):
        found |= {f"{i}.png": png(i), f"{i}.cls": [b"caf\xe9", b"caf\xe8", b"\xef\xbb\xbfowl"][i % 3]}
    write_tar(place / "a.tar", found)
    data = folder_from(place)
    assert data.class_names == ["cafè", "café", "owl"]
    assert len(data.assumed["labels that are not UTF-8, read as Latin-1"]) == 14


def test_all_tars_of_a_folder_are_found_or_named(place, tmp_path):
    write_tar(place / "train-0.tar", labelled(10))
    write_tar(place / "train-1.TAR", labelled(10, 10))
    write_tar(tmp_path / "elsewhere" / "train-2.tar", labelled(10, 20))
    (place / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (place / "loop").symlink_to(place, target_is_directory=True)
    (place / "._train-0.tar").write_bytes(b"of macOS")
    assert sum(folder_from(place).counts.values()) == 30
    (place / "train-3.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train-3.tar.gz is packed; type gunzip"):
        folder_from(place)


def test_a_tar_that_a_pattern_names_twice_is_refused(place):
    write_tar(place / "train-0.tar", labelled(10))
    with pytest.raises(ValueError, match=r"names train-0.tar twice"):
        folder_from(f"{place}/{{train,train}}-0.tar")


def test_an_empty_folder_is_no_set(place):
    place.mkdir()
    with pytest.raises(ValueError, match=r"holds neither shards.json nor a tar; `bbframe data shard` writes a set"):
        folder_from(place)


@pytest.fixture
def ours(folder, tmp_path):
    root = folder({"cat": 20, "dog": 20})
    sharded(build("image_folder", root=str(root), augment=None), "image_folder", tmp_path / "set")
    return tmp_path / "set"


def test_an_absent_tar_is_named_or_its_images_are_skipped(ours):
    tar = ours / "train-000001.tar"
    lost = tar.stat().st_size // 2600
    tar.unlink()
    with pytest.raises(
        ValueError, match=r"absent or not whole: train-000001.tar, \d+ images \(cannot be read: no such"
    ):
        folder_from(ours)
    data = folder_from(ours, on_error="skip")
    assert 1 <= len(data.skipped) <= lost
    assert all("train-000001.tar is absent or cut off" in why for why in data.skipped.values())
    assert sum(len(batch["index"]) for batch in data.train_dataloader()) == data.counts["train"] // 4 * 4


def test_a_tar_that_was_cut_off_loses_its_last_images_alone(ours):
    tar = ours / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-2700])
    with pytest.raises(ValueError, match=r"train-000001.tar, \d+ images \(has \d+ bytes, not \d+\)"):
        folder_from(ours)
    assert len(folder_from(ours, on_error="skip").skipped) == 1


def test_a_tar_of_another_set_is_told_from_the_right_one(ours, folder, tmp_path):
    root = folder({"other/cat": 20, "other/dog": 20}) / "other"
    sharded(build("image_folder", root=str(root), augment=None), "image_folder", tmp_path / "else")
    tar, size = ours / "train-000001.tar", (ours / "train-000001.tar").stat().st_size
    content = (tmp_path / "else" / "train-000001.tar").read_bytes()
    tar.write_bytes(content[:size].ljust(size, b"\0"))
    with pytest.raises(
        ValueError, match=r"the tar is not the one that the index describes; write or copy the set anew"
    ):
        list(folder_from(ours).train_dataloader())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("shards.json", b"{", "shards.json: is no JSON, or breaks off"),
        ("shards.json", b'{"version": 2}', "shards.json: it: .* must be given"),
        ("train.npz", b"PK", r"train.npz has 2 bytes, not the \d+ that shards.json says"),
    ],
)
def test_a_broken_description_is_named(ours, file, content, message):
    (ours / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        folder_from(ours)


def test_a_name_that_leaves_the_folder_is_refused(ours):
    text = (ours / "shards.json").read_text().replace('"train.npz"', '"../train.npz"')
    (ours / "shards.json").write_text(text)
    with pytest.raises(ValueError, match=r"file='../train.npz' must be text \(a file name without folders\)"):
        folder_from(ours)


def test_an_index_that_contradicts_itself_is_refused(ours):
    import numpy as np

    with np.load(ours / "train.npz") as file:
        arrays = {name: file[name] for name in file.files}
    size = (ours / "train.npz").stat().st_size
    arrays["labels"][0] = 7
    np.savez(ours / "train.npz", **arrays)
    assert (ours / "train.npz").stat().st_size == size
    with pytest.raises(ValueError, match=r"train.npz contradicts itself: it has classes that have no name"):
        folder_from(ours)
