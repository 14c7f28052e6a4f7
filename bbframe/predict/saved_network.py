"""The folder of a whole trained network, here or on the Hub: how it is written.

Its backbone lies there in the Hub's layout: config.json, model.safetensors and preprocessor_config.json. The head is
head.safetensors, what was fitted on validation images calibration.safetensors, and bbframe.json says the rest in plain
data. Parts are chosen by their names alone; a folder imports and calls nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import bbframe
from bbframe.files import atomic, write_text
from bbframe.hub.saving import save_checkpoint
from bbframe.imaging.decode import Decoding
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.predict.training_facts import TrainingFacts, plugins_of
from bbframe.registry import find
from bbframe.run.calibration_file import CALIBRATION, FittedCalibration, packed
from bbframe.run.masking import mask_secrets

FORMAT = 1  # of bbframe.json
NETWORK, HEAD = "bbframe.json", "head.safetensors"
# options of a task that shape no network
_TRAINING = "freeze batch_norm activation_checkpointing compile loss label_smoothing metrics unfamiliar".split()
_ELSEWHERE = re.compile(r"(backbone|loss|(val|test)_(metrics?|confusion|class_f1))\.")  # tensors of a task


@dataclass(frozen=True, kw_only=True)
class SavedNetwork:
    """The content of bbframe.json.

    `bbframe` is the version that wrote it. `task` and `head` are a name and options each, `plugins` the modules that
    brought parts of a user's own, as in a run's record. `fast` allows faster arithmetic, `calibrated` says whether
    calibration.safetensors belongs to it, `training` what a model card tells.
    """

    format: int
    bbframe: str
    task: Mapping[str, Any]
    head: Mapping[str, Any]
    plugins: tuple[Mapping[str, str | None], ...] = ()
    class_names: list[str]
    category_ids: list[int]
    preprocessing: Mapping[str, Any]
    decoding: Decoding = field(default_factory=Decoding)
    fast: bool = True
    calibrated: bool = False
    training: TrainingFacts = field(default_factory=TrainingFacts)


def save_network(network: TrainedNetwork, folder: str | os.PathLike[str]) -> None:
    """Write the folder of a network, made if need be; bbframe.json comes last, so that a part of it is no network.

    Raises ValueError when the folder cannot be written.
    """
    path, task = Path(folder).expanduser(), network.task
    fitted = FittedCalibration(network.calibration, network.familiarity)
    calibrated = network.calibration.temperature is not None or network.familiarity is not None
    described = dataclasses.asdict(_described(network, calibrated))
    try:
        (path / NETWORK).unlink(missing_ok=True)
        save_checkpoint(path, task.backbone, network.preprocessing)
        _write_tensors(path / HEAD, own_tensors(task.state_dict()), {"format": "pt"})
        if calibrated:
            _write_tensors(path / CALIBRATION, *packed(fitted, task))
        else:
            (path / CALIBRATION).unlink(missing_ok=True)
        write_text(path / NETWORK, json.dumps(described, indent=1) + "\n")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be written ({error}); choose another folder") from error


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, str]) -> None:
    kept = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    with atomic(path) as part:
        save_file(kept, part, facts)
        part.chmod(path.with_name("config.json").stat().st_mode & 0o777)  # safetensors keeps others from reading it


def own_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a task's state that are neither its backbone's nor those of its losses and metrics."""
    return {name: x for name, x in state.items() if not _ELSEWHERE.match(name)}


def _described(network: TrainedNetwork, calibrated: bool) -> SavedNetwork:
    task = network.task
    options = {k: v for k, v in dataclasses.asdict(task.options).items() if k not in _TRAINING}
    kinds = {"backbone": task.backbone.config.model_type, "task": task.options.name, "head": task.head_options.name}
    return SavedNetwork(
        format=FORMAT,
        bbframe=bbframe.__version__,
        task=options,
        head=dataclasses.asdict(task.head_options),
        plugins=tuple(plugins_of([find(kind, name) for kind, name in kinds.items()])),
        class_names=list(network.class_names),
        category_ids=list(network.category_ids),
        preprocessing=dataclasses.asdict(network.preprocessing),
        decoding=network.decoding,
        fast=network.fast,
        calibrated=calibrated,
        training=TrainingFacts(**mask_secrets(dataclasses.asdict(network.facts), by_name=False)),
    )
