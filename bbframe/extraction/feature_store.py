"""The features of one network on disk, found by the content of the images: whole files, written as they come."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from bbframe.extraction.stage_pooling import Key
from bbframe.files import atomic, remove_parts

MOST_BYTES = 20 * 2**30  # of all features that are kept; the networks asked for least recently go first
SUFFIX = ".safetensors"


def features_root() -> Path:
    """Where features are kept: BBFRAME_CACHE, else the user's folder of caches."""
    home = os.environ.get("BBFRAME_CACHE")
    if home:
        return Path(home).expanduser() / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bbframe" / "features"


def unusable(folder: Path, error: Exception) -> ValueError:
    """The error for a folder in which features cannot be kept."""
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    return ValueError(f"{folder}: features cannot be kept there ({why}); name another folder: BBFRAME_CACHE=...")


def column_name(key: Key) -> str:
    """What a file calls the features of a stage."""
    return "/".join(key)


class FeatureStore:
    """The features that are kept of one network in `folder`.

    Each file holds some images: their digests (images, 32) uint8, how many rows each has (images,), and the rows
    (rows, C) float32 of each key. A file is whole or absent, so that a killed process loses what was not written yet,
    and no more. One that cannot be read is deleted, and its images are computed again. Several processes may write.
    """

    def __init__(self, folder: Path, keys: Sequence[Key]) -> None:
        self.folder, self.keys = folder, list(keys)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(folder, error) from error
        remove_parts(folder)
        with suppress(OSError):
            os.utime(folder)
        self.places: dict[bytes, tuple[Path, int, int]] = {}  # of each image: its file, first row, number of rows
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            self._index(path)

    def _index(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                digests, counts = file.get_tensor("digests"), file.get_tensor("counts")
                if not {column_name(key) for key in self.keys} <= set(file.keys()):
                    raise ValueError("lacks a stage")
        except (SafetensorError, ValueError, OSError, KeyError):
            path.unlink(missing_ok=True)
            return
        starts = np.concatenate([[0], np.cumsum(counts)])
        for digest, start, count in zip(digests, starts, counts, strict=False):
            self.places.setdefault(digest.tobytes(), (path, int(start), int(count)))

    def __contains__(self, digest: bytes) -> bool:
        return digest in self.places

    def rows(self, digest: bytes) -> int:
        """How many rows an image has: one, or one for each of its boxes."""
        return self.places[digest][2]

    def add(self, digests: Sequence[bytes], counts: Sequence[int], columns: Mapping[Key, np.ndarray]) -> None:
        """Write the rows of some images into a file of their own."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        path = self.folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        tensors: dict[str, np.ndarray] = {
            column_name(key): np.ascontiguousarray(columns[key], np.float32) for key in self.keys
        }
        tensors["digests"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        tensors["counts"] = np.array(counts, np.int64)
        try:
            with atomic(path) as part:
                save_file(tensors, part)
        except (OSError, SafetensorError) as error:
            raise unusable(self.folder, error) from error
        self._index(path)

    def read(self, key: Key, digests: Sequence[bytes]) -> np.ndarray:
        """The rows of images, in their order: (rows, C) float32. A file is opened once, so memory holds the result."""
        from safetensors import safe_open

        starts = np.concatenate([[0], np.cumsum([self.rows(digest) for digest in digests])]).astype(np.int64)
        by_file: dict[Path, list[int]] = {}
        for position, digest in enumerate(digests):
            by_file.setdefault(self.places[digest][0], []).append(position)
        found: np.ndarray | None = None
        for path, positions in by_file.items():
            with safe_open(path, framework="np") as file:
                rows = file.get_tensor(column_name(key))
            if found is None:
                found = np.empty((int(starts[-1]), rows.shape[1]), np.float32)
            for position in positions:
                _, first, count = self.places[digests[position]]
                found[starts[position] : starts[position] + count] = rows[first : first + count]
        return np.empty((0, 0), np.float32) if found is None else found


def trim_features(root: Path, keep: Iterable[Path] = (), most: int = MOST_BYTES) -> None:
    """Delete features, those asked for least recently first, until the rest has at most `most` bytes."""
    kept = {folder.resolve() for folder in keep}
    sizes = []
    for folder in (path for path in root.glob("*") if path.is_dir()):
        with suppress(OSError):
            sizes.append((folder.stat().st_mtime, sum(f.stat().st_size for f in folder.iterdir()), folder))
    total = sum(size for _, size, _ in sizes)
    for _, size, folder in sorted(sizes):
        if total <= most:
            return
        if folder.resolve() not in kept:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
