"""Callbacks and loggers: a user's own by their registered name, Lightning's by a `_target_` from a list."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bbframe.registry import PartOptions, make, names, parse_part
from bbframe.schema import checked_value, nearest

# Lightning's classes that each group may name, by the module that holds them: a configuration runs no other code
ALLOWED = {
    "callbacks": {
        "lightning.pytorch.callbacks": "DeviceStatsMonitor EarlyStopping GradientAccumulationScheduler "
        "LearningRateMonitor ModelSummary RichModelSummary StochasticWeightAveraging ThroughputMonitor Timer".split()
    },
    "logger": {
        "lightning.pytorch.loggers": "CometLogger CSVLogger MLFlowLogger TensorBoardLogger WandbLogger".split()
    },
}
# what a configuration may say to a logger: where it sends to and with whose login is said in the environment
LOGGER_OPTIONS = {
    "CometLogger": "api_key workspace project experiment_key mode online prefix name",
    "CSVLogger": "save_dir name version prefix flush_logs_every_n_steps",
    "MLFlowLogger": "experiment_name run_name tags save_dir log_model prefix run_id synchronous",
    "TensorBoardLogger": "save_dir name version log_graph default_hp_metric prefix sub_dir comment purge_step "
    "max_queue flush_secs filename_suffix",
    "WandbLogger": "name save_dir version offline id anonymous project log_model prefix checkpoint_name "
    "add_file_policy entity group tags notes job_type resume mode",
}
# any one of these packages serves a logger
PACKAGES = {
    "CometLogger": ("comet_ml",),
    "MLFlowLogger": ("mlflow",),
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "WandbLogger": ("wandb",),
    "trackio": ("trackio",),
}
EXTRAS = {"MLFlowLogger": "mlflow", "TensorBoardLogger": "tensorboard", "WandbLogger": "wandb", "trackio": "trackio"}
PLACES = ("save_dir", "name", "version", "sub_dir", "comment", "filename_suffix", "checkpoint_name", "prefix")
KIND = {"callbacks": "callback", "logger": "logger"}


@dataclass(frozen=True)
class LightningClass:
    """A class of Lightning's by its `target`, the full name, and the `arguments` that a configuration gives it."""

    target: str
    arguments: Mapping[str, Any]


Group = Literal["callbacks", "logger"]
LightningParts = Mapping[str, LightningClass | PartOptions]


def parse_lightning_parts(group: Group, entries: Mapping[str, Any]) -> LightningParts:
    """What the entries of a group describe; imports nothing.

    Raises ValueError for an entry that neither names a registered part nor has a `_target_` from the list.
    """
    return {key: _parse_entry(group, f"{group}.{key}", entry) for key, entry in entries.items()}


def _parse_entry(group: Group, where: str, entry: Any) -> LightningClass | PartOptions:
    if isinstance(entry, str) or (isinstance(entry, Mapping) and "name" in entry and "_target_" not in entry):
        return parse_part(KIND[group], entry, where)
    allowed = [f"{module}.{name}" for module, classes in ALLOWED[group].items() for name in classes]
    target = entry.get("_target_") if isinstance(entry, Mapping) else None
    if not isinstance(target, str):
        known = names(KIND[group])
        own = f", or the name of a registered {KIND[group]}: {', '.join(known)}" if known else ""
        raise ValueError(f"{where}: must be a mapping with a _target_, such as {allowed[0]}{own}")
    if target not in allowed:
        raise ValueError(
            f"{where}: _target_={target!r} is not on the list of what a configuration may name"
            f"{nearest(target, allowed)}; a {KIND[group]} of your own is registered, given by --plugin "
            "and chosen by its name"
        )
    arguments = {key: value for key, value in entry.items() if key != "_target_"}
    for key, value in arguments.items():
        checked_value(value, Any, f"{where}: {key}")
    if group == "logger":
        _check_logger(where, target.rpartition(".")[2], arguments)
    return LightningClass(target, arguments)


def check_installed(where: str, part: LightningClass | PartOptions) -> None:
    """Raise ValueError when the package that a logger needs is not installed."""
    name = part.target.rpartition(".")[2] if isinstance(part, LightningClass) else part.name
    packages = PACKAGES.get(name, ())
    if packages and not any(importlib.util.find_spec(package) for package in packages):
        extra = f"bbframe[{EXTRAS[name]}]" if name in EXTRAS else packages[0].replace("_", "-")
        raise ValueError(f"{where}: {name} needs a package that is not installed: pip install '{extra}'")


def _check_logger(where: str, name: str, arguments: Mapping[str, Any]) -> None:
    """A logger writes below the run folder, and sends nothing to where a file says."""
    options = LOGGER_OPTIONS[name].split()
    for key, value in arguments.items():
        if key not in options:
            raise ValueError(
                f"{where}: {name} has no option {key!r} in a configuration{nearest(key, options)}; where it sends to "
                "and with whose login its package reads from the environment, such as MLFLOW_TRACKING_URI"
            )
        text = str(value)
        away = os.path.isabs(text) or re.search(r"^~|(^|[/\\])\.\.([/\\]|$)|::|://", text)
        if key in PLACES and away:
            raise ValueError(
                f"{where}: {key}={text} must lead below the run folder; give a relative path, such as logs, and "
                "choose the run folder on the command line: hydra.run.dir=..."
            )


def make_lightning_parts(group: Group, parts: LightningParts, folder: Path) -> list[Any]:
    """The objects that a group describes; a logger writes below the run folder.

    Raises ValueError for an unknown argument, a value that it refuses, or a package that is not installed.
    """
    settings = [folder] if group == "logger" else []
    return [
        _make_lightning_class(f"{group}.{key}", part, folder)
        if isinstance(part, LightningClass)
        else make(KIND[group], part, *settings)
        for key, part in parts.items()
    ]


def _make_lightning_class(where: str, part: LightningClass, folder: Path) -> Any:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    module, _, name = part.target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    arguments, known = dict(part.arguments), inspect.signature(cls.__init__).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    for key in arguments:
        if key not in known and not takes_any:
            raise ValueError(f"{where}: unknown option {key!r}{nearest(key, set(known) - {'self'})}")
    if "save_dir" in known:
        arguments["save_dir"] = str(folder / str(arguments.get("save_dir") or ""))
    try:
        return cls(**arguments)
    except ModuleNotFoundError as error:
        raise ValueError(f"{where}: {part.target} needs a package that is not installed: {error}") from error
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"{where}: {part.target} refuses its options: {' '.join(str(error).split())}") from error
