"""Lightning's callbacks and loggers by `_target_`, and none but those listed here: configurations run no code."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bbframe.schema import nearest

# what each group may name, by the module that holds it
ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "callbacks": {
        "lightning.pytorch.callbacks": (
            "DeviceStatsMonitor",
            "EarlyStopping",
            "GradientAccumulationScheduler",
            "LearningRateMonitor",
            "ModelSummary",
            "RichModelSummary",
            "StochasticWeightAveraging",
            "ThroughputMonitor",
            "Timer",
        ),
    },
    "logger": {
        "lightning.pytorch.loggers": (
            "CometLogger",
            "CSVLogger",
            "MLFlowLogger",
            "TensorBoardLogger",
            "WandbLogger",
        ),
    },
}


def check_plugins(group: str, entries: Mapping[str, Any]) -> None:
    """Refuse, by ValueError, an entry without `_target_` or with one that is not on the list. Imports nothing."""
    allowed = [f"{module}.{name}" for module, names in ALLOWED[group].items() for name in names]
    for key, entry in entries.items():
        target = entry.get("_target_") if isinstance(entry, Mapping) else None
        if not isinstance(target, str):
            raise ValueError(f"{group}.{key}: must be a mapping with a _target_, such as {allowed[0]}")
        if target not in allowed:
            raise ValueError(
                f"{group}.{key}: _target_={target!r} is not on the list of what a configuration may name"
                f"{nearest(target, allowed)}"
            )


def make_plugins(group: str, entries: Mapping[str, Any], folder: Path) -> list[Any]:
    """The objects that the entries of a group describe; a logger writes below the run folder unless it says where.

    Raises ValueError for what `check_plugins` refuses, an unknown argument, or a package that is not installed.
    """
    check_plugins(group, entries)
    return [_make(f"{group}.{key}", dict(entry), folder) for key, entry in entries.items()]


def _make(where: str, entry: dict[str, Any], folder: Path) -> Any:
    target = entry.pop("_target_")
    module, _, name = target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    known = inspect.signature(cls.__init__).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    for key in entry:
        if key not in known and not takes_any:
            raise ValueError(f"{where}: unknown option {key!r}{nearest(key, set(known) - {'self'})}")
    if "save_dir" in known:
        entry.setdefault("save_dir", str(folder))
    try:
        return cls(**entry)
    except ModuleNotFoundError as error:
        raise ValueError(f"{where}: {target} needs a package that is not installed: {error}") from error
