"""The files of a checkpoint, on the Hub, in a folder or alone, and the tensors inside them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bbframe.options import nearest

# in the order of preference; `.bin` files are read with weights_only=True
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Checkpoint:
    """A checkpoint's files: `source` is a folder, a weights file, or a repository's id on the Hub.

    Raises ValueError when `source` is a path that does not exist, or no valid id.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        revision: str | None = None,
        *,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
    ):
        self.source, self.revision = os.fspath(source), revision
        self.path = Path(self.source).expanduser()
        self.local = self.path.exists()
        self._hub_options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "token": token,
        }
        if not self.local and not _HUB_ID.fullmatch(self.source):
            siblings = [p.name for p in self.path.parent.iterdir()] if self.path.parent.is_dir() else []
            raise ValueError(f"{self.source}: no such folder or file{nearest(self.path.name, siblings)}")

    def file(self, name: str) -> Path | None:
        """The local path of one of its files, fetched when it is on the Hub; None when the checkpoint lacks it."""
        if self.local:
            path = (self.path if self.path.is_dir() else self.path.parent) / name
            return path if path.is_file() else None
        return self._fetch(name)

    def _fetch(self, name: str) -> Path | None:
        import huggingface_hub
        from huggingface_hub import errors

        what = f"{self.source}: {name}"
        try:
            path = huggingface_hub.hf_hub_download(self.source, name, revision=self.revision, **self._hub_options)
        except errors.GatedRepoError as error:
            raise ValueError(
                f"{what}: the repository is gated; ask for access on its page, then run `hf auth login`"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ValueError(f"{what}: no revision {self.revision!r}; leave revision null for the newest") from error
        except errors.RepositoryNotFoundError as error:
            raise ValueError(
                f"{what}: no such repository on the Hub, or a private one; check the spelling, or run `hf auth login`"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            if name not in ("config.json", *_WEIGHTS[:1]):
                return None  # the files that decide are in the cache, this optional one is not
            pinned = f" --revision {self.revision}" if self.revision else ""
            raise ValueError(
                f"{what}: the Hub cannot be reached and the file is not in the cache; where there is a network run "
                f"`hf download {self.source}{pinned} --local-dir FOLDER`, then give FOLDER as the checkpoint"
            ) from error
        except errors.EntryNotFoundError:
            return None
        except (errors.HfHubHTTPError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{what}: could not be downloaded ({reason}); try again") from error
        snapshot = Path(path).parts
        if "snapshots" in snapshot:
            self.revision = snapshot[snapshot.index("snapshots") + 1]
        return Path(path)

    def json(self, name: str) -> dict[str, Any] | None:
        """The content of one of its JSON files; None when the checkpoint lacks it."""
        path = self.file(name)
        if path is None:
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid JSON ({error}); fetch the file again") from error
        if not isinstance(data, dict):
            raise ValueError(f"{path}: must hold a JSON object, not {type(data).__name__}")
        return data

    def weight_files(self) -> list[Path]:
        """The files that hold the tensors; ValueError when there are none."""
        if self.local and self.path.is_file():
            if self.path.suffix not in (".safetensors", ".bin", ".pt", ".pth"):
                raise ValueError(f"{self.path}: not a weights file; give a .safetensors or .bin file, or a folder")
            return [self.path]
        for name in _WEIGHTS:
            path = self.file(name)
            if path is not None:
                return self._shards(path) if name.endswith(".index.json") else [path]
        raise ValueError(f"{self.source}: holds no weights; looked for {', '.join(_WEIGHTS)}")

    def _shards(self, index: Path) -> list[Path]:
        weight_map = (self.json(index.name) or {}).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise ValueError(f"{index}: has no weight_map; fetch the file again")
        paths = []
        for name in sorted(set(map(str, weight_map.values()))):
            if name != Path(name).name or "\\" in name or name.startswith("."):
                raise ValueError(f"{index}: refers to {name!r}; shards must be plain file names beside the index")
            path = self.file(name)
            if path is None:
                raise ValueError(f"{index}: the shard {name} is missing; fetch it into the same folder")
            paths.append(path)
        return paths


@contextmanager
def open_tensors(path: Path) -> Iterator[Mapping[str, Any]]:
    """The tensors of one file, each read when it is asked for: a mapping from name to something to index with [...].

    Raises ValueError that names the file when it is empty, truncated, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            opened = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            size = path.stat().st_size
            raise ValueError(
                f"{path}: not a whole safetensors file ({size} bytes: {error}); delete it and fetch it again"
            ) from error
        with opened as file:
            yield {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: not a whole file of tensors alone ({reason}); fetch it again, or a .safetensors version"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path}: must hold a plain mapping from names to tensors")
    yield data


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
