"""All runs below a folder. The folders are the truth; an index beside them is a cache that may be deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bbframe.files import write_text
from bbframe.sweep.job_results import flattened, is_finite, read_config, read_run_folder

INDEX = ".bbframe-index.json"
VERSION = 1  # of the index: another one is ignored
RECORDS = ("metrics.json", "error.txt", "overrides.yaml", "config.yaml")  # what a run is read from
MARKS = RECORDS[:3]  # a folder with one of these is a run; many a folder has a config.yaml
Signature = list[list[Any]]  # name, modification time in nanoseconds and size of each record


def find_runs(folder: Path) -> Iterator[tuple[Path, Signature]]:
    """Every run folder at or below a folder, by its path, with what its files looked like.

    Hidden folders, links and what lies inside of a run are left out, as are folders that may not be read.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        files = {entry.name: entry for entry in entries if entry.name in RECORDS and entry.is_file()}
        if any(name in files for name in MARKS):
            times = {name: entry.stat() for name, entry in files.items()}
            yield folder, [[name, stat.st_mtime_ns, stat.st_size] for name, stat in times.items()]
            return
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from find_runs(folder / entry.name)


def read_runs(folder: Path, configs: bool = False) -> list[dict[str, Any]]:
    """Every run below a folder with dotted keys: its metrics.json, status and error; "folder" is relative to `folder`.

    "val" and "test" are the values of the run's own metric; scores of single classes are left out. With `configs` the
    keys of config.yaml stand beside those of metrics.json, which win. Reads what the index does not know, and writes
    the index when it has changed; an index that is damaged, or cannot be written, changes nothing but the time.
    """
    known, index = _read_index(folder), {}
    for path, signature in find_runs(folder):
        name = str(path.relative_to(folder))
        entry = known.get(name, {})
        if entry.get("signature") != signature:
            entry = {"signature": signature, "run": _short(read_run_folder(path))}
        if configs and "config" not in entry:
            entry = {**entry, "config": flattened(read_config(path))}
        index[name] = entry
    if index != known:
        with suppress(OSError):
            write_text(folder / INDEX, json.dumps({"version": VERSION, "runs": index}, separators=(",", ":")))
    runs = []
    for name, entry in index.items():
        config = entry["config"] if configs else {}
        runs.append({**config, **entry["run"], "folder": name})
    return runs


def _read_index(folder: Path) -> dict[str, Any]:
    """The entries of the index by the runs' paths; empty when there is none that can be used."""
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        entries: dict[str, Any] = content["runs"]
        whole = content["version"] == VERSION and all(
            isinstance(entry["signature"], list)
            and isinstance(entry["run"], dict)
            and isinstance(entry["run"]["status"], str)
            and isinstance(entry.get("config", {}), dict)
            for entry in entries.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return entries if whole else {}


def _short(run: dict[str, Any]) -> dict[str, Any]:
    """A run with dotted keys, without its place and without the scores of single classes."""
    metric = run.get("metric")
    values = {part: (run.get(part) or {}).get(metric) for part in ("val", "test")}
    own = {part: value if is_finite(value) else None for part, value in values.items()}
    flat = flattened({key: value for key, value in run.items() if key != "path" and not key.startswith("class_")})
    flat = {key: None if isinstance(value, float) and not is_finite(value) else value for key, value in flat.items()}
    return {**flat, **{part: value for part, value in own.items() if value is not None}}
