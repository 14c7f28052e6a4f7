"""What a run left in its folder, read back as plain data; a folder that is broken or unfinished says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from bbframe.files import read_yaml
from bbframe.sweep.jobs import FILES, LEFT_OUT

KINDS: dict[str, type] = {"overrides": list, "maps": dict, "metric": str, "mode": str, "image_size": list}
KIND_NAMES: dict[type, str] = {list: "list", dict: "mapping", str: "text"}
NUMBERS = ("val", "test", "test_low", "test_high", "calibration", "seconds")  # of metrics.json, by their names


def read_jobs(sweep_folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep, which are its direct sub-folders, in the order of their numbers: 0, 1, ..., 10.

    Each is what `read_run_folder` gives, with "folder" relative to the sweep and "config", the run's configuration.
    """
    folders = sorted(job_folders(sweep_folder), key=lambda folder: _number_first(folder.name))
    return [{**read_run_folder(folder), "folder": folder.name, "config": read_config(folder)} for folder in folders]


def job_folders(folder: Path) -> list[Path]:
    """The run folders that lie in a folder, in any order."""
    return [inner for inner in folder.iterdir() if any((inner / name).is_file() for name in FILES)]


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds run folders and is none itself."""
    if not folder.is_dir() or any((folder / name).is_file() for name in FILES):
        return False
    return any((inner / name).is_file() for inner in job_folders(folder) for name in ("metrics.json", "error.txt"))


def _number_first(name: str) -> tuple[float, str]:
    number = name.partition("_")[0]
    return (int(number) if number.isascii() and number.isdigit() else math.inf, name)


def read_run_folder(folder: Path) -> dict[str, Any]:
    """The content of metrics.json, with "path" and, unless "status" is ok, "error" in one line.

    A run that left no metrics.json has "status" failed, left out or unfinished, and its "overrides". Never raises for
    what the folder holds.
    """
    run: dict[str, Any] = {"status": "failed", "overrides": [], "path": str(folder)}
    try:
        if (folder / "overrides.yaml").is_file():
            run["overrides"] = [str(line) for line in read_yaml(folder / "overrides.yaml", list)]
        if (folder / "metrics.json").is_file():
            run.update(_read_metrics(folder / "metrics.json"))
            if run["status"] == "pruned":
                run["error"] = f"the search gave it up after epoch {run.get('epochs')}"
            return run if run["status"] == "ok" else {"error": "it does not say why", **run}
        if (folder / "error.txt").is_file():
            text = (folder / "error.txt").read_text(encoding="utf-8", errors="replace").strip()
            return {**run, "error": text.partition("\n")[0] or "it does not say why"}
        if (folder / LEFT_OUT).is_file():
            return {**run, "status": "left out", "error": (folder / LEFT_OUT).read_text(encoding="utf-8").strip()}
    except (OSError, ValueError, RecursionError) as error:
        return {**run, "status": "failed", "error": f"broken record: {error}"}
    return {**run, "status": "unfinished", "error": "no metrics.json: still running, or killed"}


def _read_metrics(file: Path) -> dict[str, Any]:
    """The content of a metrics.json; raises ValueError for what no run writes."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("status"), str):
        raise ValueError(f"{file.name} has no status")
    if "best" in content:
        content = _renewed(content)
    for name in NUMBERS:
        group = content.get(name, {})
        if not isinstance(group, dict) or not all(is_real(value) or value is None for value in group.values()):
            raise ValueError(f"{file.name}: {name} must map names to numbers")
    for name, kind in KINDS.items():
        if not isinstance(content.get(name, kind()), kind):
            raise ValueError(f"{file.name}: {name} must be a {KIND_NAMES[kind]}")
    if not all(map(is_real, content.get("maps", {}).values())) or isinstance(content.get("seed"), (dict, list)):
        raise ValueError(f"{file.name}: maps and seed must hold numbers")
    return content


def _renewed(content: dict[str, Any]) -> dict[str, Any]:
    """What earlier versions wrote, which had "best" and "test/accuracy", as metrics.json is now."""
    best, test = content.pop("best") or {}, content.get("test") or {}
    if not isinstance(best, dict) or not isinstance(test, dict):
        raise ValueError("best and test must be mappings")
    metric = str(best.get("metric") or content.get("metric") or next(iter(test), "")).rpartition("/")[2]
    return {
        **content,
        "metric": metric,
        "mode": "min" if metric.endswith(("loss", "error")) else "max",
        "val": {metric: best["value"]} if "value" in best else {},
        "best_epoch": best.get("epoch"),
        "test": {str(name).removeprefix("test/"): value for name, value in test.items()},
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run folder records; empty without one, and for one that is broken."""
    try:
        config: dict[str, Any] = read_yaml(folder / "config.yaml", dict)
    except ValueError:
        return {}
    return config


def is_real(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, which a switch is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, and neither NaN nor infinite."""
    return is_real(value) and math.isfinite(value)


def flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data with dotted keys, as `pandas.json_normalize` names them; lists stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
