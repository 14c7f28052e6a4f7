"""Checkpoints in a folder: written whole or not at all, read without running anything, damage named."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import bbframe.files
import bbframe.run.sharded_checkpoint as module
from bbframe.run.checkpoint import load_checkpoint
from bbframe.run.lightning_checkpoints import AtomicCheckpointIO
from bbframe.run.sharded_checkpoint import copy_sharded, write_sharded

PRELOADED = ["bbframe.run.lightning_checkpoints", "torch.distributed.checkpoint", "torch.distributed.tensor", __name__]


def begin() -> None:
    """Make this process the only one of a run."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


@pytest.fixture(autouse=True)
def _alone():
    begin()
    yield
    dist.destroy_process_group()


def content(number: int) -> dict[str, object]:
    """What a checkpoint may hold: parted tensors at any depth, whole ones, and plain data."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def parted(*shape: int, dtype: torch.dtype = torch.float32):
        return distribute_tensor(torch.full(shape, float(number), dtype=dtype), mesh, [Shard(0)])

    state = {0: {"exp_avg": parted(5, 3), "step": torch.tensor(float(number))}}
    return {
        "state_dict": {"a.weight": parted(5, 3), "mean": torch.ones(2), "b": parted(4, dtype=torch.bfloat16)},
        "optimizer_states": [{"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "epoch": number,
    }


def assert_holds(path: Path, number: int) -> None:
    found = load_checkpoint(path).content
    assert list(found["state_dict"]) == ["a.weight", "mean", "b"]
    assert found["epoch"] == number
    (state,) = found["optimizer_states"]
    for tensor in (found["state_dict"]["a.weight"], state["state"][0]["exp_avg"]):
        torch.testing.assert_close(tensor, torch.full((5, 3), float(number)), rtol=0, atol=0)
    assert found["state_dict"]["b"].dtype == torch.bfloat16
    assert state["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert set(found) == {"state_dict", "optimizer_states", "epoch"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.ckpt"


@pytest.fixture
def written(path):
    write_sharded(content(1), path)
    return path


def test_what_is_written_is_read_and_the_next_replaces_it(written):
    assert_holds(written, 1)
    write_sharded(content(2), written)
    assert_holds(written, 2)
    assert sorted(file.name for file in written.iterdir()) == ["meta.pt", "tensors_2"]


def test_nothing_names_the_folders_of_a_machine(written):
    for file in written.rglob("*"):
        assert file.is_dir() or str(written.parent).encode() not in file.read_bytes(), file


def test_a_copy_is_the_same(written, tmp_path):
    copy_sharded(written, tmp_path / "copy" / "last.ckpt")
    assert_holds(tmp_path / "copy" / "last.ckpt", 1)


def test_a_folder_takes_the_place_of_a_file_and_a_file_of_a_folder(path):
    plain = AtomicCheckpointIO()
    plain.save_checkpoint({"epoch": 0}, path)
    write_sharded(content(1), path)
    assert_holds(path, 1)
    plain.save_checkpoint({"epoch": 2}, path)
    assert load_checkpoint(path).content == {"epoch": 2}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def flip(file: Path, at: bytes | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if at is None else data.index(at)] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: flip(folder / "tensors_1" / "__0_0.distcp"), "checksum of tensors_1/__0_0.distcp differs"),
        (lambda folder: os.truncate(folder / "tensors_1" / "__0_0.distcp", 99), "__0_0.distcp has 99 bytes, not "),
        (lambda folder: (folder / "tensors_1" / "__0_0.distcp").unlink(), "its file tensors_1/__0_0.distcp does not"),
        (lambda folder: flip(folder / "tensors_1" / ".metadata"), "the checksum of tensors_1/.metadata differs"),
        (lambda folder: flip(folder / "meta.pt", b"param_groups"), "is damaged: its meta.pt is "),
        (lambda folder: (folder / "meta.pt").write_bytes(b""), "is damaged: its meta.pt is empty"),
        (lambda folder: (folder / "meta.pt").unlink(), "is not a file, nor the folder of a checkpoint"),
    ],
)
def test_damage_is_named(written, damage, said):
    torch.save({"epoch": 0}, written.with_name("other.ckpt"))
    damage(written)
    with pytest.raises(ValueError, match="checkpoint ") as caught:
        load_checkpoint(written)
    assert said in str(caught.value)
    assert str(caught.value).endswith("other.ckpt is whole: try that one")
    assert "\n" not in str(caught.value)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def forged(folder: Path, change) -> None:
    """Change torch's description of the tensors, and the checksum with it."""
    file = folder / "tensors_1" / ".metadata"
    metadata = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(change(metadata) or metadata))
    meta = torch.load(folder / "meta.pt", weights_only=True)
    meta["sharded_tensors"]["files"][".metadata"] = [file.stat().st_size, module._checksum(file)]
    torch.save(meta, folder / "meta.pt")


def hidden(metadata, key, value):
    setattr(metadata, key, value)


def first_entry(metadata):
    return next(iter(metadata.state_dict_metadata.values()))


def elsewhere(metadata):
    next(iter(metadata.storage_data.values())).relative_path = "../../secret.distcp"


FORGERIES = {
    "code in place of it": (lambda m, place: Code(place), "posix.mkdir, which is code"),
    "code inside of it": (lambda m, place: hidden(m, "planner_data", Code(place)), "posix.mkdir, which is code"),
    "an object that is unpickled": (
        lambda m, place: m.state_dict_metadata.update(x=BytesStorageMetadata()),
        "BytesStorageMetadata, which is code",
    ),
    "a file elsewhere": (lambda m, place: elsewhere(m), "leads to other files"),
    "a huge tensor": (lambda m, place: hidden(first_entry(m), "size", torch.Size([10**12])), "more than its files"),
    "no size": (lambda m, place: hidden(first_entry(m), "size", "x"), "do not fit together: AttributeError"),
    "another tensor": (lambda m, place: m.state_dict_metadata.pop("state_dict/b") and None, "names other tensors"),
    "no description": (lambda m, place: [1, 2], "does not describe tensors"),
    "copies of copies": (lambda m, place: [torch.Size(range(2000))] * 2 + [torch.Size(range(9))] * 9, "not describe"),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_strangers_description_runs_nothing(written, kind, tmp_path):
    change, said = FORGERIES[kind]
    ran = tmp_path / "ran"
    forged(written, lambda metadata: change(metadata, ran))
    with pytest.raises(ValueError, match="checkpoint ") as caught:
        load_checkpoint(written)
    assert said in str(caught.value)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("folder", "../tensors_1"),
        ("folder", "/tensors_1"),
        ("files", {"../meta.pt": [1, 2]}),
        ("files", {"__0_0.distcp": "x"}),
        ("places", [["state_dict"], ["nowhere", "x"]]),
    ],
)
def test_a_strangers_meta_leads_nowhere(written, key, value):
    meta = torch.load(written / "meta.pt", weights_only=True)
    meta["sharded_tensors"][key] = value
    torch.save(meta, written / "meta.pt")
    with pytest.raises(ValueError, match=r"checkpoint .*last\.ckpt .* its "):
        load_checkpoint(written)


def write_and_die(path: Path, first: str, moment: int) -> None:
    """Write a second checkpoint, and be killed before a step of it that changes the disk, by its number."""
    begin()
    left = [moment]

    def mortal(function):
        def step(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return step

    new = content(2)
    for holder, name in ((Path, "mkdir"), (os, "replace"), (os, "fsync"), (shutil, "rmtree"), (torch, "save")):
        setattr(holder, name, mortal(getattr(holder, name)))
    if first == "folder, then file":
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    else:
        write_sharded(new, path)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["folder", "file", "folder, then file", "nothing"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(first, path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    survived, kept = set(), []
    for moment in range(60):
        shutil.rmtree(path.parent, ignore_errors=True)
        if first == "file":
            AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
        elif first != "nothing":
            write_sharded(content(1), path)
        process = context.Process(target=write_and_die, args=(path, first, moment))
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        # between the two renames of a change of kind the old one has another name
        found = next((p for p in (path, path.with_name("last_before.ckpt")) if p.exists()), None)
        if first == "nothing" and found is None:
            kept.append(0)
        else:
            assert found is not None, moment
            kept.append(load_checkpoint(found).content["epoch"])
        if process.exitcode == 0:
            assert found == path
            break
        survived.add(moment)
    assert process.exitcode == 0, "every step was a moment"
    assert kept == sorted(kept), "once it is the new one, it stays"
    assert kept[0] == (0 if first == "nothing" else 1)
    assert kept[-1] == 2
    if first == "folder":  # what the killed ones have left goes with the next
        write_sharded(content(3), path)
        assert_holds(path, 3)
        assert len([*path.iterdir()]) == 2


def test_an_error_of_the_disk_leaves_the_old_one(written, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bbframe.files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_sharded(content(2), written)
    monkeypatch.undo()
    assert_holds(written, 1)
