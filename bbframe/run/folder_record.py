"""The record in a run folder, read without importing anything heavy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from bbframe.files import read_yaml


def read_folder_record(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The configuration and the overrides in a run folder. Raises ValueError that says what is wrong with it."""
    if not source.is_dir():
        near = next(parent for parent in (source.absolute(), *source.absolute().parents) if parent.parent.is_dir())
        there = sorted(path.name for path in near.parent.iterdir())
        closest = ", ".join(difflib.get_close_matches(near.name, there, n=3, cutoff=0)) or "nothing"
        raise ValueError(f"{source}: there is no {near.name!r} in {near.parent}; closest there: {closest}")
    if not (source / "config.yaml").is_file():
        inside = sorted(path.parent.name for path in source.glob("*/config.yaml"))
        hint = f"; run folders in it: {', '.join(inside[-5:])}" if inside else ""
        raise ValueError(f"{source}: not a run folder, it holds no config.yaml{hint}")
    overrides = source / "overrides.yaml"
    lines = read_yaml(overrides, list) if overrides.is_file() else []
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{overrides}: must be a list of texts such as seed=1")
    return read_yaml(source / "config.yaml", dict), lines
