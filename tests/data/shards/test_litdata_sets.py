"""litdata's chunks, written by its own writer and read by itself; needs the extra litdata."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("litdata", reason="needs the extra litdata")

from bbframe.data.shards.litdata_writer import write_litdata
from tests.data.helpers import build
from tests.data.shards.helpers import folder_from, png, same_batches


@pytest.mark.parametrize("name", ["digits", "digit_scenes"])
def test_a_set_of_chunks_gives_the_batches_of_its_source(name, tmp_path):
    masks = name == "digit_scenes"
    small = {"train_scenes": 20, "val_scenes": 9, "test_scenes": 9} if masks else {}
    source = build(name, masks=masks, **small)
    write_litdata(source, name, tmp_path / "set", masks=masks, shard_bytes=100_000)
    shards = build(name, masks=masks, shards=str(tmp_path / "set"), **small)
    assert len(list((tmp_path / "set" / "train").glob("*.bin"))) > 1
    assert source.counts == shards.counts
    for part, count in source.counts.items():
        assert source.fingerprint(part, range(count)) == shards.fingerprint(part, range(count))
    assert same_batches(source.train_dataloader(), shards.train_dataloader())
    assert same_batches(source.test_dataloader(), shards.test_dataloader())
    many = build(name, masks=masks, shards=str(tmp_path / "set"), num_workers=2, **small)
    assert same_batches(shards.val_dataloader(), many.val_dataloader())
    many.teardown("fit")


def test_an_absent_chunk_is_named(tmp_path):
    write_litdata(build("digits"), "digits", tmp_path / "set", shard_bytes=100_000)
    sorted((tmp_path / "set" / "train").glob("*.bin"))[0].unlink()
    with pytest.raises(ValueError, match=r"absent or not whole: chunk-0-0.bin, \d+ images"):
        build("digits", shards=str(tmp_path / "set"))


def chunks(folder, samples):
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir(parents=True)
    writer = BinaryWriter(str(folder), chunk_bytes=20_000)
    for number, sample in enumerate(samples):
        writer.add_item(number, sample)
    writer.done()
    writer.merge()


def test_chunks_of_other_programs_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chunks(tmp_path / "set" / "train", ({"image": png(i), "class": i % 3} for i in range(30)))
    chunks(tmp_path / "set" / "val", ({"image": png(i), "class": i % 3} for i in range(6)))
    data = folder_from(tmp_path / "set")
    assert data.counts == {"train": 30, "val": 6}
    assert data.class_names == ["0", "1", "2"]
    assert data.parts["train"].read(7).getpixel((0, 0)) == 7
    assert data.parts["train"].labels.tolist() == [i % 3 for i in range(30)]


def test_pictures_and_words_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    samples = []
    for i in range(20):
        path = tmp_path / f"{i}.jpg"
        Image.fromarray(np.full((9, 9, 3), 10 * i, np.uint8)).save(path)
        with Image.open(path) as image:
            image.load()
            samples.append((Image.fromarray(np.asarray(image)), ["owl", "cat"][i % 2]))
    chunks(tmp_path / "set", samples)
    data = folder_from(tmp_path / "set")
    assert data.class_names == ["cat", "owl"]
    assert sum(data.counts.values()) == 20


def test_chunks_at_http_are_refused(tmp_path):
    from bbframe.data.shards.litdata_shards import LitdataShards

    with pytest.raises(ValueError, match="litdata reads folders and s3://, not https://"):
        LitdataShards("https://x/y", tmp_path, 1)
