"""The files of a checkpoint, on the Hub, in a folder or alone, and the tensors inside them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# in the order of preference; `.bin` files are read with weights_only=True
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


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
        self._unreached: Exception | None = None  # why a file that may exist could not be had
        self._knocked = False
        self._hub_options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "token": token,
        }
        if not self.local and (self.path.suffix in _SUFFIXES or not _HUB_ID.fullmatch(self.source)):
            siblings = [p.name for p in self.path.parent.iterdir()] if self.path.parent.is_dir() else []
            close = difflib.get_close_matches(self.path.name, siblings, n=1)
            raise ValueError(
                f"{self.source}: no such folder or file, and no id on the Hub"
                + (f"; did you mean {str(self.path.with_name(close[0]))!r}?" if close else "; check the path")
            )
        if self.local and revision is not None:
            raise ValueError(f"{self.source}: revision={revision!r} is for the Hub, this is local; leave it null")

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
        self._knock(name)
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
            self._unreached = error
            if name != "config.json":
                return None  # another form of the weights may be in the cache, and other files are optional
            raise self._offline(name) from error
        except errors.EntryNotFoundError:
            return None
        except (errors.HfHubHTTPError, OSError) as error:
            raise ValueError(f"{what}: could not be downloaded ({_first_line(error)}); try again") from error
        folder = Path(path).parent
        if folder.parent.name == "snapshots":
            self.revision = folder.name
        return Path(path)

    def _knock(self, name: str) -> None:
        """Ask the Hub once, before the first download: where it does not answer, only the cache is looked at.

        The client itself would ask for half a minute, and say so line by line.
        """
        import huggingface_hub
        from huggingface_hub import errors

        if self._knocked or self._hub_options["local_files_only"]:
            return
        self._knocked = True
        url = huggingface_hub.hf_hub_url(self.source, name, revision=self.revision)
        try:
            huggingface_hub.get_hf_file_metadata(url, token=self._hub_options["token"])
        except errors.HfHubHTTPError:
            return  # it answered: the download says what is wrong
        except Exception:  # no route, no name, no certificate, a proxy that refuses: every client has its own classes
            self._hub_options["local_files_only"] = True

    def _offline(self, name: str) -> ValueError:
        pinned = f" --revision {self.revision}" if self.revision else ""
        return ValueError(
            f"{self.source}: {name}: the Hub cannot be reached and the file is not in the cache; where there is a "
            f"network run `hf download {self.source}{pinned} --local-dir FOLDER`, then give FOLDER in its place"
        )

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
            if self.path.suffix not in _SUFFIXES:
                raise ValueError(f"{self.path}: not a weights file; give a .safetensors or .bin file, or a folder")
            return [self.path]
        for name in _WEIGHTS:
            path = self.file(name)
            if path is not None:
                return self._shards(path) if name.endswith(".index.json") else [path]
        if self._unreached is not None:
            raise self._offline(_WEIGHTS[0]) from self._unreached
        raise ValueError(f"{self.source}: holds no weights; looked for {', '.join(_WEIGHTS)}")

    def _shards(self, index: Path) -> list[Path]:
        weight_map = (self.json(index.name) or {}).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise ValueError(f"{index}: has no weight_map; fetch the file again")
        paths = []
        for name in sorted(set(map(str, weight_map.values()))):
            if not name or name != Path(name).name or "\\" in name or name.startswith("."):
                raise ValueError(f"{index}: refers to {name!r}; shards must be plain file names beside the index")
            path = self.file(name)
            if path is None and not self.local:
                raise self._offline(name)
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
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise ValueError(
            f"{path}: not a whole file of tensors alone ({_first_line(error)}); fetch it again, or as .safetensors"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path}: must hold a plain mapping from names to tensors")
    yield data


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
