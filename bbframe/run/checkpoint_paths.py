"""Whether there is a checkpoint at a path: a file, or a folder whose tensors are parted over processes."""

from __future__ import annotations

from pathlib import Path

META = "meta.pt"  # in the folder: all but the tensors that are parted


def is_sharded(path: Path) -> bool:
    """Whether a path is a checkpoint in a folder."""
    return (path / META).is_file()


def is_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint of this name, a file or a folder."""
    return path.is_file() or is_sharded(path)
