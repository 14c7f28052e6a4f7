"""The files of a checkpoint, on the Hub, in a folder or alone, and the tensors inside them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bbframe.hub.client import Repository, file_fault, first_line, hash_file

# in the order of preference; `.bin` files are read with weights_only=True
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_PLAIN_NAME = re.compile(r"\w[\w .+-]{0,200}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


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
        for digest in [] if sha256 is None else [sha256] if isinstance(sha256, str) else sha256.values():
            if not _SHA256.fullmatch(str(digest)):
                raise ValueError(f"{self.source}: sha256={digest!r} must be 64 hexadecimal digits")
        if self.local and revision is not None:
            raise ValueError(f"{self.source}: revision={revision!r} is for the Hub, this is local; leave it null")
        if not self.local:
            if self.path.suffix in _SUFFIXES or not _HUB_ID.fullmatch(self.source):
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
        """The content of its `config.json`, read once; None when the checkpoint lacks it."""
        return self.json("config.json")

    def needed_config(self) -> dict[str, Any]:
        """`config`, or ValueError when the checkpoint lacks it."""
        if self.config is None:
            raise ValueError(f"{self.source}: no config.json there; put it beside the weights, or pass config=")
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
        if fault := file_fault(path):
            raise ValueError(f"{path}: {fault}; fetch the file again")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"{path}: must hold a JSON object, not {type(data).__name__}")
        return data

    def weight_files(self) -> list[Path]:
        """The files that hold the tensors; ValueError when there are none, or others than `sha256` says."""
        paths = self._weight_files()
        names = [path.name for path in paths]
        pins = {names[0]: self._sha256} if isinstance(self._sha256, str) else dict(self._sha256 or {})
        if pins and set(pins) != set(names):
            raise ValueError(
                f"{self.source}: sha256 is given for {', '.join(pins)}; give it for each of {', '.join(names)}"
            )

        def foreign(path: Path) -> str | None:
            found, wanted = self.digest(path), pins[path.name].lower()
            return None if found == wanted else f"its SHA-256 is {found}, not {wanted} as sha256 says"

        if pins and self._hub:
            return [self._hub.sound(path, foreign) for path in paths]
        for path in paths if pins else []:
            if fault := foreign(path):
                raise ValueError(f"{path}: {fault}; fetch the file again, or correct sha256")
        return paths

    def digest(self, path: Path) -> str:
        """The SHA-256 of one of its files, in hexadecimal."""
        return self._hub.digest(path) if self._hub else hash_file(path, hashlib.sha256())

    def _weight_files(self) -> list[Path]:
        if self.local and self.path.is_file():
            if self.path.suffix not in _SUFFIXES:
                raise ValueError(f"{self.path}: not a weights file; give a .safetensors or .bin file, or a folder")
            return [self.path]
        for name in _WEIGHTS:
            path = self.file(name)
            if path is not None:
                return self._shards(path) if name.endswith(".index.json") else [path]
        if self._hub and self._hub.offline:
            raise self._hub.absent(_WEIGHTS[0])
        raise ValueError(f"{self.source}: holds no weights; looked for {', '.join(_WEIGHTS)}")

    def _shards(self, index: Path) -> list[Path]:
        weight_map = (self.json(index.name) or {}).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise ValueError(f"{index}: has no weight_map; fetch the file again")
        names = sorted(set(map(str, weight_map.values())))
        for name in names:
            if not _PLAIN_NAME.fullmatch(name):
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


def file_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name; ValueError for a file that is empty, truncated, or holds more than tensors."""
    if path.suffix == ".safetensors":
        if fault := file_fault(path):
            raise ValueError(f"{path}: {fault}; delete it and fetch it again")
        return load_file(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise ValueError(
            f"{path}: not a whole file of tensors alone ({first_line(error)}); fetch it again, or as .safetensors"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path}: must hold a plain mapping from names to tensors")
    return data
