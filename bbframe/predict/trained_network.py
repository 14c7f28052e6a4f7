"""A trained network, read from a checkpoint, and what it takes to apply it to images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bbframe.data.decode import AS_USUAL, Decoding
from bbframe.data.images.image_transforms import eval_input
from bbframe.hub.client import no_repository
from bbframe.preprocessing import Preprocessing
from bbframe.run.checkpoint import load_checkpoint
from bbframe.run.configuration import parse_configuration
from bbframe.tasks.task import Task


@dataclass(frozen=True)
class TrainedNetwork:
    """A task in evaluation mode on a device.

    `prepare` turns an image into the network's input (C, H, W) and says by which factors it scaled x and y.
    `category_ids` are the numbers by which the data set calls the classes, by default their indices. `decoding` says
    how the training read image files, and `checkpoint` what an error message calls the network.
    """

    task: Task
    prepare: Callable[[Image.Image], tuple[Tensor, tuple[float, float]]]
    class_names: Sequence[str]
    category_ids: Sequence[int]
    device: torch.device
    decoding: Decoding = AS_USUAL
    checkpoint: Path = Path()

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor]) -> list[Any]:
        """The probabilities (K,) of each prepared image or, of a detector, what `Detection.predict` returns.

        Raises ValueError for numbers that are not finite, which predict nothing.
        """
        answers = list(self.task.predict([image.to(self.device) for image in images]))
        for answer in answers:
            _demand_finite(self.checkpoint, answer.values() if isinstance(answer, dict) else [answer])
        return answers


def load_trained_network(path: Path, device: str = "auto") -> TrainedNetwork:
    """Read the network of a checkpoint; its data set and pretrained weights are not needed, nor is the Hub asked.

    Raises ValueError that says what is wrong with the checkpoint.
    """
    saved = load_checkpoint(path)
    # devices, loggers and callbacks of the training do not matter here
    idle: dict[str, Any] = {"trainer": {}, "logger": {}, "callbacks": {}}
    with no_repository(f"checkpoint {path} names it as its backbone, and a checkpoint may send nothing to the Hub"):
        plan = parse_configuration({**saved.run.config, **idle, "backbone": saved.run.backbone_options})
        plan = dataclasses.replace(plan, task=dataclasses.replace(plan.task, compile=False))
        backbone = plan.make_backbone(saved.run)
    names = saved.run.class_names
    task = plan.make_task(backbone, names)
    saved.check_fits(task)
    task.load_state_dict(saved.content["state_dict"])
    _demand_finite(path, task.parameters())
    # a detector leaves boxes without a finite score out, so that its maps are looked at too
    task.backbone.register_forward_hook(lambda module, given, output: _demand_finite(path, output.feature_maps))
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    prepare = eval_input(plan.data, Preprocessing(**saved.run.inputs), backbone.config.num_channels)
    ids = saved.run.category_ids or range(len(names))
    return TrainedNetwork(task.eval().to(place), prepare, names, list(ids), place, Decoding.of(plan.data), path)


def _demand_finite(checkpoint: Path, numbers: Iterable[Tensor]) -> None:
    if not all(values.isfinite().all() for values in numbers):
        raise ValueError(
            f"predict: checkpoint {checkpoint} gives numbers that are not finite (nan or inf), because its weights or "
            "its mean and std are broken; take another checkpoint"
        )
