"""What a classifier's scores are worth, fitted after a training on validation images: calibration.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bbframe.data.data_module import DataModule
from bbframe.files import atomic
from bbframe.run.processes import is_first
from bbframe.schema import parse
from bbframe.tasks.calibration import COLDEST, HOTTEST, Calibration, fit_temperature
from bbframe.tasks.classification import Classification
from bbframe.tasks.familiarity import FEWEST, Familiarity, fit_familiarity
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")
CALIBRATION = "calibration.safetensors"
TRAINING_IMAGES, IMAGES_A_CLASS = 1000, 20  # how many are looked at again: the larger number, or all there are
MOST = 10**8  # scores that are held: of more, those of every second image, or every third ...


@dataclass(frozen=True)
class FittedCalibration:
    """What calibration.safetensors holds."""

    calibration: Calibration = field(default_factory=Calibration)
    familiarity: Familiarity | None = None


def fit_calibration(trainer: pl.Trainer, task: Task, data: DataModule) -> FittedCalibration | None:
    """Fit a classifier's temperature, and what tells unfamiliar images, on validation images; None for another task.

    The test of the task uses them unless these are the very images that are tested, because what is fitted on a test
    says nothing about it.
    """
    if not isinstance(task, Classification):
        return None
    task.calibrated = Calibration()
    task.keep_familiarity(None)
    task.predict_every = max(1, math.ceil(data.counts["val"] * data.num_classes / MOST))
    rows: list[Any] = trainer.predict(task, datamodule=data) or []
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, rows)
        rows = [row for share in shares for row in share]
    scores, labels, val = (torch.cat(column) for column in zip(*rows, strict=True))
    temperature = fit_temperature(scores, labels)
    if temperature is None:
        log.info("temperature  none from %g to %g suits the %d validation images best", COLDEST, HOTTEST, len(labels))
    familiarity = None
    if task.options.unfamiliar:
        familiarity = fit_familiarity(*_train_features(trainer, task, data), val)
        if familiarity is None:
            log.info("unfamiliar  no threshold is set: %d validation images, of %d or more", len(labels), FEWEST)
    found = FittedCalibration(Calibration(temperature=temperature, images=len(labels)), familiarity)
    if data.test_part == "test":
        task.calibrated = found.calibration
        task.keep_familiarity(found.familiarity)
    else:
        log.info("temperature  no test tells what it is worth: the validation images are the ones that are tested")
    return found


def _train_features(trainer: pl.Trainer, task: Classification, data: DataModule) -> tuple[Tensor, Tensor]:
    """The features (N, C) and labels (N,) of training images, spread evenly, as an evaluation sees them."""
    count, every, task.predict_every = data.counts["train"], task.predict_every, 1
    kept = min(count, max(TRAINING_IMAGES, IMAGES_A_CLASS * data.num_classes))
    indices = np.linspace(0, count - 1, kept).round().astype(int).tolist()
    # every process looks at all of them
    rows: list[Any] = trainer.predict(task, dataloaders=data.loader_of("train", indices)) or []
    data.teardown("predict")
    task.predict_every = every
    _, labels, features = (torch.cat(column) for column in zip(*rows, strict=True))
    return features, labels


def write_calibration(folder: Path, found: FittedCalibration | None, task: Task) -> None:
    """Write calibration.safetensors, if any, into a run folder, with a digest of the head that it belongs to."""
    if found is None or not is_first():
        return
    with atomic(folder / CALIBRATION) as part:
        tensors, facts = packed(found, task)
        save_file(tensors, part, facts)


def packed(found: FittedCalibration, task: Task) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A calibration as tensors and metadata."""
    kept = {} if found.familiarity is None else dict(found.familiarity.state_dict())
    facts = {**dataclasses.asdict(found.calibration), "head_sha256": head_digest(task.head)}
    return {name: x.cpu().contiguous() for name, x in kept.items()}, {"calibration": json.dumps(facts)}


def read_calibration(folder: Path, task: Task) -> FittedCalibration:
    """The calibration in a folder that belongs to the weights of a task, or an empty one when there is none.

    Raises ValueError that names the file when it cannot be read.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return FittedCalibration()
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("calibration", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = dict(facts).get("head_sha256")
        known = {key: value for key, value in dict(facts).items() if key != "head_sha256"}
        calibration = parse(Calibration, known, "calibration")
        familiarity = _familiarity(tensors) if tensors else None
    except (ValueError, TypeError, KeyError, RecursionError, SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it to go without a calibration") from error
    if digest != head_digest(task.head) or not _fits(familiarity, task):
        return FittedCalibration()
    return FittedCalibration(calibration, familiarity)


def _familiarity(tensors: dict[str, Tensor]) -> Familiarity:
    """Raises ValueError for tensors that are none of a familiarity."""
    whitening, centres = tensors["whitening"], tensors["centres"]
    square = whitening.ndim == centres.ndim == 2 and whitening.shape[0] == whitening.shape[1] == centres.shape[1]
    if not square or not len(centres):
        raise ValueError(f"whitening {list(whitening.shape)} and centres {list(centres.shape)} do not belong together")
    if not all(x.is_floating_point() and x.isfinite().all() for x in (whitening, centres)):
        raise ValueError("whitening and centres must hold finite numbers")
    return Familiarity(whitening, centres)


def _fits(familiarity: Familiarity | None, task: Task) -> bool:
    if familiarity is None:
        return True
    channels = task.backbone.channels[-1]
    return tuple(familiarity.whitening.shape) == (channels, channels) == (channels, familiarity.centres.shape[-1])


def head_digest(head: nn.Module) -> str:
    """The SHA-256 of a head's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(head.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
