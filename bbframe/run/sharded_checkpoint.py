"""A checkpoint whose tensors are sharded over processes: a folder with torch's distributed files and one meta.pt.

`last.ckpt/meta.pt` holds all but the sharded tensors. It names the folder beside it that holds those, with the size
and the checksum of each of its files. Replacing meta.pt is the one step that makes a checkpoint count.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bbframe.files import PART, atomic, sync
from bbframe.hub.client import first_line
from bbframe.hub.safe_pickle import HoldsCodeError, load_known, load_plain
from bbframe.run.checkpoint_paths import META, is_sharded, take_the_place

TENSORS = (
    "sharded_tensors"  # in meta.pt: the folder and the files of the tensors, and where in the content each belongs
)
METADATA = ".metadata"
FILE = re.compile(r"__\d{1,6}_\d{1,6}\.distcp|\.metadata")
# what torch's description of sharded tensors consists of
KNOWN = {
    "torch.distributed.checkpoint.metadata": "Metadata TensorStorageMetadata TensorProperties ChunkStorageMetadata "
    "MetadataIndex StorageMeta _MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo",
    "torch.serialization": "_get_layout",
    "torch": "Size float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool",
}
T = TypeVar("T")


def write_sharded(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whose DTensors every process has a part of; all processes of the run call it.

    `path` holds the old checkpoint or the new, whenever a process is killed; see `take_the_place` for one that was a
    file. Raises OSError in all processes when one cannot write.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.metadata import StorageMeta

    class Writer(dcp.FileSystemWriter):
        def storage_meta(self) -> StorageMeta:
            """Without the path, which would name a machine's folders."""
            return StorageMeta()

    tensors: dict[tuple[str | int, ...], Any] = {}
    rest = _parted(content, (), tensors)
    part = _in_first(lambda: _new_part(path))
    try:
        dcp.save({_key(place): tensor for place, tensor in tensors.items()}, storage_writer=Writer(part))
    except CheckpointException as error:  # no Exception of Python's
        raise next(iter(error.failures.values()))[0] from None
    own = [*part.glob(f"__{dist.get_rank()}_*"), *([part / METADATA] if dist.get_rank() == 0 else [])]
    files = _gathered(lambda: {file.name: [file.stat().st_size, _checksum(file)] for file in own})
    rest[TENSORS] = {"files": files, "places": [list(place) for place in tensors]}
    _in_first(lambda: _commit(rest, part, path))


def read_sharded(path: Path) -> dict[str, Any]:
    """The content of a checkpoint in a folder, its tensors whole and on the CPU. One process reads it alone.

    Raises ValueError when the folder is not what `write_sharded` writes; nothing in it can run.
    """
    try:
        return _read(path)
    except (AssertionError, AttributeError, EOFError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"its parts do not fit together: {type(error).__name__}: {first_line(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    import torch.distributed.checkpoint as dcp

    content = load_plain(path / META)
    folder, files, places = _described(content)
    metadata = _read_metadata(path / folder, files)

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            return metadata

    known = metadata.state_dict_metadata
    if sorted(known) != sorted(map(_key, places)):
        raise ValueError(f"its {folder}/{METADATA} names other tensors than its {META}")
    tensors = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in known.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, storage_reader=Reader(path / folder), no_dist=True)
    del content[TENSORS]
    for place in places:
        *outer, last = place
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = tensors[_key(place)]
    return content


def damaged_shard(path: Path) -> str | None:
    """What is wrong with the files that a whole meta.pt names: None when each has its size and its checksum."""
    try:
        folder, files, _ = _described(load_plain(path / META))
    except Exception:  # who reads it says what is wrong
        return None
    for name, (size, checksum) in files.items():
        file = path / folder / name
        if not file.is_file():
            return f"is not whole: its file {folder}/{name} does not exist"
        if file.stat().st_size != size:
            return f"is damaged (its file {folder}/{name} has {file.stat().st_size} bytes, not {size})"
        if _checksum(file) != checksum:
            return f"is damaged (the checksum of {folder}/{name} differs)"
    return None


def _described(content: Any) -> tuple[str, dict[str, Any], list[Any]]:
    """The folder, the files and the places of the tensors, as a meta.pt says. Raises ValueError when it does not."""
    said = content.get(TENSORS) if isinstance(content, dict) else None
    if not isinstance(said, dict) or not {"folder", "files", "places"} <= said.keys():
        raise ValueError(f"its {META} does not say where its tensors are")
    folder, files, places = str(said["folder"]), said["files"], said["places"]
    if not re.fullmatch(r"tensors_\d{1,9}", folder) or not all(FILE.fullmatch(str(name)) for name in files):
        raise ValueError(f"its {META} names files that no checkpoint has")
    if not all(len(numbers) == 2 and all(isinstance(n, int) for n in numbers) for numbers in files.values()):
        raise ValueError(f"its {META} does not say how large its files are")
    return folder, files, places


def _read_metadata(folder: Path, files: dict[str, Any]) -> Any:
    """torch's description of the tensors, read without running anything, and checked against the files.

    torch itself would unpickle it, which runs what the file names.
    """
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

    if METADATA not in files:
        raise ValueError(f"its {folder.name} has no {METADATA}")
    known = {f"{module}.{name}" for module, names in KNOWN.items() for name in names.split()}
    metadata = load_known((folder / METADATA).read_bytes(), known)
    if not isinstance(metadata, Metadata):
        raise HoldsCodeError(f"its {METADATA} does not describe tensors")
    claimed = 0
    for entry in metadata.state_dict_metadata.values():
        if not isinstance(entry, TensorStorageMetadata) or not isinstance(entry.properties.dtype, torch.dtype):
            raise HoldsCodeError(f"its {METADATA} names more than tensors")
        claimed += entry.size.numel() * entry.properties.dtype.itemsize
    for index, place in metadata.storage_data.items():
        plain = (
            isinstance(index, MetadataIndex) and isinstance(place, _StorageInfo) and not place.transform_descriptors
        )
        if not plain or place.relative_path not in files:
            raise HoldsCodeError(f"its {METADATA} leads to other files than those of {folder.name}")
    if claimed > sum(size for size, _ in files.values()):
        raise ValueError(f"its {METADATA} claims more than its files hold")
    return metadata


def _parted(value: Any, place: tuple[str | int, ...], tensors: dict[tuple[str | int, ...], Any]) -> Any:
    """A copy of nested dicts and lists with None for each DTensor, which is put into `tensors` by its place."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        tensors[place] = value
        return None
    if isinstance(value, dict):
        return {key: _parted(inner, (*place, key), tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_parted(inner, (*place, number), tensors) for number, inner in enumerate(value)]
    return value


def _key(place: Any) -> str:
    """What a tensor is called in the files."""
    return "/".join(map(str, place))


def _in_first(work: Callable[[], T]) -> T:
    """What the first process finds or raises while it works, in all processes."""
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except OSError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    found: T = outcome[0]
    return found


def _gathered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What all processes find while they work, in all of them; they raise what one of them raises."""
    try:
        found: Any = work()
    except OSError as error:
        found = error
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, found)
    for share in shares:
        if isinstance(share, OSError):
            raise share
    return {key: value for share in shares for key, value in share.items()}


def _home(path: Path) -> Path:
    """Where the files of a checkpoint are written: into its folder, or beside its name until they are a whole one."""
    return path if is_sharded(path) else path.with_name(f".{path.name}_folder")


def _new_part(path: Path) -> Path:
    """Make the temporary folder of the next tensors, and remove what killed processes have left."""
    home = _home(path)
    if home != path:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob(f".*{PART}"):
        shutil.rmtree(left, ignore_errors=True)  # a temporary meta.pt is a file: who writes the next replaces it
    part = home / f".tensors_{1 + max(_numbers(home), default=0)}{PART}"
    part.mkdir()
    return part


def _numbers(home: Path) -> Iterator[int]:
    for folder in home.glob("tensors_*"):
        yield int(folder.name.rpartition("_")[2])


def _commit(rest: dict[str, Any], part: Path, path: Path) -> None:
    """Make the tensors in a temporary folder, and the `rest`, the checkpoint."""
    missing = [name for name in rest[TENSORS]["files"] if not (part / name).is_file()]
    if missing:
        raise OSError(
            f"{path}: the first process does not see {missing[0]}, which another has written; several machines need a "
            "file system that they share: output_dir=<folder on it>"
        )
    home, name = part.parent, part.name.removeprefix(".").removesuffix(PART)
    sync(part)
    os.replace(part, home / name)
    sync(home)
    rest[TENSORS]["folder"] = name
    with atomic(home / META) as meta, meta.open("wb") as file:
        torch.save(rest, file)
    if home != path and path.exists():
        take_the_place(home, path)
    elif home != path:
        os.replace(home, path)
        sync(path.parent)
    for old in path.glob("tensors_*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def copy_sharded(source: Path, target: Path) -> None:
    """Copy a checkpoint in a folder to a place where there is none; a kill leaves none or a whole one."""
    part = target.with_name(f".{target.name}_copy")
    shutil.rmtree(part, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns(f".*{PART}"))
    for file in part.rglob("*"):
        sync(file)
    os.replace(part, target)
    sync(target.parent)
