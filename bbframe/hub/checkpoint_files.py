"""The files of a checkpoint, on the Hub, in a folder or alone, and the tensors inside them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from bbframe.hub.client import Repository, first_line, json_fault
from bbframe.hub.hub_ids import HUB_ID, WEIGHT_SUFFIXES
from bbframe.hub.pickled_weights import conversion, unpickled

# in the order of preference; `.bin` files are read with weights_only=True
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_MOST_SHARDS = 1024
_AGAIN = "delete it and fetch it again"
RECORD = "bbframe"  # where a checkpoint of a run of bbframe holds the record of that run
_PLAIN_NAME = re.compile(r"\w[\w .+-]{0,200}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class WeightsFile(NamedTuple):
    """What one file held when it was read: `sha256` is of the very bytes that the tensors came from.

    `picked` says what was taken where the file holds more than tensors. `record` is what a run of bbframe left there,
    if any.
    """

    name: str
    sha256: str
    tensors: dict[str, Tensor]
    picked: str = ""
    record: Mapping[str, Any] | None = None


class Checkpoint:
    """A checkpoint's files: `source` is a folder, a weights file, or a repository's id on the Hub.

    `sha256` pins the weights: the digest of the one file that holds them, or a mapping from every file's name to its
    digest. Raises ValueError when `source` is a path that does not exist, or no valid id.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        revision: str | None = None,
        *,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
    ):
        self.source = os.fspath(source)
        self.path = Path(self.source).expanduser()
        self.local = self.path.exists()
        self._sha256 = sha256
        self._hub: Repository | None = None
        self._note = ""
        for digest in [] if sha256 is None else [sha256] if isinstance(sha256, str) else sha256.values():
            if not _SHA256.fullmatch(str(digest)):
                raise ValueError(f"{self.source}: sha256={digest!r} must be 64 hexadecimal digits")
        if self.local and revision is not None:
            raise ValueError(f"{self.source}: revision={revision!r} is for the Hub, this is local; leave it null")
        if not self.local:
            if _suffix(self.path) in WEIGHT_SUFFIXES or not HUB_ID.fullmatch(self.source):
                siblings = [p.name for p in self.path.parent.iterdir()] if self.path.parent.is_dir() else []
                close = difflib.get_close_matches(self.path.name, siblings, n=1)
                raise ValueError(
                    f"{self.source}: no such folder or file, and no id on the Hub"
                    + (f"; did you mean {str(self.path.with_name(close[0]))!r}?" if close else "; check the path")
                )
            self._hub = Repository(
                self.source, revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
            )

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The content of its `config.json`, read once; None when the checkpoint lacks it.

        A checkpoint of a run of bbframe holds its backbone's config itself.
        """
        if self.record is not None:
            return dict(self.record["backbone"])
        return self.json("config.json")

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The record in a checkpoint that a run of bbframe left, None for any other."""
        own_run = self.local and _suffix(self.path) == ".ckpt" and self.path.is_file()
        return self.weights[0].record if own_run else None

    @cached_property
    def preprocessor(self) -> dict[str, Any] | None:
        """The content of its `preprocessor_config.json`, read once; None when the checkpoint lacks it."""
        return self.json("preprocessor_config.json")

    @property
    def note(self) -> str:
        """What was assumed to find the files; or what the cache gave although the Hub may have something newer."""
        return self._hub.note if self._hub else self._note

    def unknown(self, name: str) -> str | None:
        """Why nobody can tell whether the checkpoint has a file that could not be got; None when that is known."""
        return None if self._hub is None or self._hub.lacks(name) else str(self._hub.absent(name))

    def needed_config(self) -> dict[str, Any]:
        """`config`, or ValueError when the checkpoint lacks it."""
        if self.config is None:
            below = sorted(self.path.glob("*/config.json")) if self.local and self.path.is_dir() else []
            inside = f"; {below[0].parent} has one: give that folder" if below else ""
            raise ValueError(
                f"{self.source}: no config.json there{inside or '; put it beside the weights, or pass config='}"
            )
        return self.config

    @property
    def revision(self) -> str | None:
        """The commit on the Hub, once a file of it has been fetched; before that, what was asked for."""
        return self._hub.revision if self._hub else None

    def file(self, name: str) -> Path | None:
        """The local path of one of its files, fetched when it is on the Hub; None when the checkpoint lacks it."""
        if self._hub is None:
            path = (self.path if self.path.is_dir() else self.path.parent) / name
            return path if path.is_file() else None
        return self._hub.fetch(name)

    def json(self, name: str) -> dict[str, Any] | None:
        """The content of one of its JSON files; None when the checkpoint lacks it."""
        path = self.file(name)
        if path is None and name == "config.json" and self._hub and self._hub.offline:
            raise self._hub.absent(name)  # other files are optional
        if path is None:
            return None
        content = path.read_bytes()
        if fault := json_fault(path, content):
            raise ValueError(f"{path}: {fault}; fetch the file again")
        data = json.loads(content.decode("utf-8-sig"))
        if not isinstance(data, dict):
            raise ValueError(f"{path}: must hold a JSON object, not {type(data).__name__}")
        return data

    @cached_property
    def weights(self) -> list[WeightsFile]:
        """The files that hold the tensors, each read once. Raises ValueError when there are none, when one is damaged
        or holds more than tensors, and when its hash is not what `sha256` says."""
        paths = self.weight_paths()
        names = [path.name for path in paths]
        pins = {names[0]: self._sha256} if isinstance(self._sha256, str) else dict(self._sha256 or {})
        if pins and set(pins) != set(names):
            raise ValueError(
                f"{self.source}: sha256 is given for {', '.join(pins)}; give it for each of {', '.join(names)}"
            )

        return [self._read(path, pins.get(path.name, "").lower()) for path in paths]

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of one more safetensors file beside the weights; None when the checkpoint lacks it.

        Raises ValueError for a damaged one.
        """
        path = self.file(name)
        return None if path is None else self._read(path, "").tensors

    def _read(self, path: Path, pin: str) -> WeightsFile:
        content, found, tensors = b"", "", {}

        def fault(path: Path) -> str | None:
            nonlocal content, found, tensors
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if self._hub and (damage := self._hub.damage(path, content)):
                return damage
            if pin and found != pin:
                return f"its SHA-256 is {found}, not {pin} as sha256 says"
            try:
                tensors = dict(sorted(load(content).items())) if _suffix(path) == ".safetensors" else {}
            except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
                return f"not a whole safetensors file ({len(content)} bytes: {first_line(error)})"
            return None

        if self._hub:
            path = self._hub.sound(path, fault)
        elif problem := fault(path):
            foreign = pin and found != pin
            raise ValueError(f"{path}: {problem}; {'fetch the file again, or correct sha256' if foreign else _AGAIN}")
        if _suffix(path) != ".safetensors":
            return _from_pickle(path, found, content)
        if twice := _repeated_name(content):
            raise ValueError(f"{path}: holds two tensors called {twice!r}; fetch it from where it is whole")
        return WeightsFile(path.name, found, tensors)

    def weight_paths(self) -> list[Path]:
        """The files that hold the tensors, fetched if they are on the Hub. Raises ValueError when there are none."""
        if self.local and self.path.is_file():
            if _suffix(self.path) not in WEIGHT_SUFFIXES:
                raise ValueError(
                    f"{self.path}: not a weights file; give a .safetensors or .bin file, or a folder "
                    f"({', '.join(WEIGHT_SUFFIXES[2:])} are read too)"
                )
            return [self.path]
        for name in WEIGHT_FILES:
            path = self.file(name)
            if path is not None:
                return self._shards(path) if name.endswith(".index.json") else [path]
        if self._hub and self._hub.offline:
            raise self._hub.absent(WEIGHT_FILES[0])
        others = sorted(p for p in self.path.iterdir() if _suffix(p) in WEIGHT_SUFFIXES) if self.local else []
        if len(others) == 1 and _suffix(others[0]) == ".safetensors":
            self._note = f"{others[0].name}: taken as the only weights in the folder"
            return others
        if others:
            raise ValueError(
                f"{self.source}: holds no weights by the names {', '.join(WEIGHT_FILES)}; give one of its files: "
                f"{', '.join(map(str, others[:8]))}"
            )
        inside = self.path / "backbone"
        hint = f"; it is a run's folder: give {inside}" if self.local and inside.is_dir() else ""
        raise ValueError(f"{self.source}: holds no weights; looked for {', '.join(WEIGHT_FILES)}{hint}")

    def choice(self, prefixes: Sequence[str]) -> str:
        """What to do where the weights hold several networks, whose names follow these prefixes."""
        (path, *others) = self.weight_paths()
        if others:
            return f"keep one in each file of {self.source}"
        return f"choose: {' or '.join(conversion(path, prefix) for prefix in prefixes)}"

    def _shards(self, index: Path) -> list[Path]:
        weight_map = (self.json(index.name) or {}).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise ValueError(f"{index}: has no weight_map; fetch the file again")
        names = sorted(set(map(str, weight_map.values())))
        if len(names) > _MOST_SHARDS:
            raise ValueError(f"{index}: refers to {len(names)} shards, where {_MOST_SHARDS} are the most")
        for name in names:
            if not _PLAIN_NAME.fullmatch(name) or not name.endswith(WEIGHT_SUFFIXES):
                raise ValueError(f"{index}: refers to {name!r}; shards must be plain file names beside the index")
        paths = []
        for name in names:
            path = self.file(name)
            if path is None and self._hub and self._hub.offline:
                raise self._hub.absent(name)
            if path is None:
                raise ValueError(f"{index}: the shard {name} is missing; fetch it into the same folder")
            paths.append(path)
        return paths


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _from_pickle(path: Path, sha256: str, content: bytes) -> WeightsFile:
    """The content of a file that torch wrote, and the record that a run of bbframe may have left there."""
    tensors, picked, data = unpickled(path, content)
    record = data.get(RECORD) if isinstance(data, Mapping) else None
    whole = isinstance(record, Mapping) and isinstance(record.get("backbone"), Mapping)
    return WeightsFile(path.name, sha256, tensors, picked, record if whole else None)


def _repeated_name(content: bytes) -> str | None:
    """A name that the header of a sound safetensors file gives to two tensors."""
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        repeated.extend({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ())

    json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=note)
    return repeated[0] if repeated else None
