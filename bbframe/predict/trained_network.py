"""A trained network, read from a checkpoint, and what it takes to apply it to images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbframe.backbone import Backbone
from bbframe.data.images.image_transforms import eval_preprocessing
from bbframe.hub.client import first_line, no_repository
from bbframe.imaging.decode import AS_USUAL, Decoding
from bbframe.predict.image_predictor import THRESHOLD, ImagePredictor
from bbframe.predict.image_results import ClassResult
from bbframe.predict.training_facts import TrainingFacts, facts_of_run
from bbframe.preprocessing import Preprocessing
from bbframe.run.calibration_file import FittedCalibration, read_calibration
from bbframe.run.checkpoint import load_checkpoint
from bbframe.run.configuration import parse_configuration
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.familiarity import Familiarity
from bbframe.tasks.task import Task


class TrainedNetwork(nn.Module, ImagePredictor):
    """A backbone and its head, in evaluation mode: call it on images of any kind and size.

    `network(image)` returns a `ClassResult` or a `BoxResult`, `network([image, ...])` a list of them: see
    `predict_images`. It moves and casts as every module of PyTorch does: `.to("cuda")`, `.half()`. `.compile()`
    compiles backbone and head in place. `task` is what was trained, and `facts` says how. `save_pretrained` writes a
    folder that `bbframe.load` reads, `push_to_hub` publishes one.
    """

    task: Task
    familiarity: Familiarity | None

    def __init__(
        self,
        task: Task,
        preprocessing: Preprocessing,
        *,
        category_ids: Sequence[int] | None = None,
        decoding: Decoding = AS_USUAL,
        fitted: FittedCalibration | None = None,
        origin: str = "",
        fast: bool = True,
        told: Callable[[], TrainingFacts] | None = None,
    ):
        super().__init__()
        self.task = task.eval()
        kinds = {Classification: "classification", Detection: "detection"}  # a user's own task may extend either
        self.task_name = next((name for kind, name in kinds.items() if isinstance(task, kind)), task.options.name)
        self.class_names = list(task.class_names)
        self.category_ids = list(category_ids or range(len(self.class_names)))
        self.preprocessing, self.decoding, self.origin = preprocessing, decoding, origin
        task.backbone.preprocessing = preprocessing  # as the run prepared images
        self.fast, self._told = fast, told or TrainingFacts
        fitted = fitted or FittedCalibration()
        self.calibration, self.familiarity = fitted.calibration, fitted.familiarity
        if isinstance(task, Classification):
            task.calibrated = self.calibration

    def forward(self, images: Any, *, threshold: float = THRESHOLD, batch_size: int = 8) -> Any:
        """As `predict_images`."""
        return self.predict_images(images, threshold=threshold, batch_size=batch_size)

    @cached_property
    def facts(self) -> TrainingFacts:
        """What is known of the training; ValueError for a run whose record is broken."""
        return self._told()

    @property
    def backbone(self) -> Backbone:
        """The trained backbone: maps of prepared images, `network.backbone(x).feature_maps`."""
        return self.task.backbone

    @property
    def head(self) -> nn.Module:
        """The trained head, which reads the backbone's maps."""
        return self.task.head

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.backbone.dtype

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile backbone and head in place; the arguments are those of `torch.compile`."""
        self.backbone.compile(*args, **options)
        if isinstance(self.task, Classification):  # a detector's head chooses boxes, as many as there are
            self.head.compile(*args, **options)

    def train(self, mode: bool = True) -> TrainedNetwork:
        """Stay in evaluation mode; ValueError for training, which a run does."""
        if mode:
            raise ValueError(
                "a loaded network stays in evaluation mode; to train on, use python train.py backbone.pretrained=true "
                "backbone.checkpoint=<run>/checkpoints/best.ckpt, or the modules .backbone and .head"
            )
        super().train(False)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `bbframe.load` reads, and whose backbone alone `AutoBackbone.from_pretrained` reads.

        Raises ValueError when it cannot be written.
        """
        from bbframe.predict.saved_network import save_network

        save_network(self, folder)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        licence: str | None = None,
        overwrite: bool = False,
    ) -> str:
        """Publish it with a model card as `user/name` on the Hub, where `bbframe.load` finds it; returns the URL.

        It is one commit to the branch `revision` of a repository that is made for it, or that is there already with
        `overwrite`. Without `token`, the usual places give one. Raises ValueError, in one line, when that fails.
        """
        from bbframe.predict.network_publishing import publish_network

        return publish_network(
            self,
            repo,
            private=private,
            token=token,
            revision=revision,
            message=commit_message,
            licence=licence,
            overwrite=overwrite,
        )

    @torch.inference_mode()
    def answers(self, inputs: Sequence[Tensor]) -> list[Any]:
        images = [image.to(self.device, self.dtype) for image in inputs]
        if isinstance(self.task, Classification) and type(self.task).predict is Classification.predict:
            scores, features = self.task.scores_and_features(torch.stack(images))
            demand_finite(self.origin, [scores])
            shares = self.calibration.probabilities(scores).cpu()
            far = [None] * len(images) if self.familiarity is None else self.familiarity(features).tolist()
            return [ClassResult(row, self.class_names, one) for row, one in zip(shares, far, strict=True)]
        answers = list(self.task.predict(images))
        for answer in answers:
            numbers = answer.values() if isinstance(answer, dict) else [answer]
            demand_finite(self.origin, [x for x in numbers if isinstance(x, Tensor)])
        if self.task_name == "classification":  # a task of one's own says probabilities, and no energy
            return [ClassResult(answer.float().cpu(), self.class_names) for answer in answers]
        return answers


def load_trained_network(path: Path, device: str = "auto") -> TrainedNetwork:
    """Read the network of a checkpoint; its data set and pretrained weights are not needed, nor is the Hub asked.

    `device` is "auto" (a GPU where there is one) or one of torch's. Raises ValueError that says what is wrong with the
    checkpoint.
    """
    saved = load_checkpoint(path)
    # devices, loggers and callbacks of the training do not matter here
    idle: dict[str, Any] = {"trainer": {}, "logger": {}, "callbacks": {}}
    with no_repository(f"checkpoint {path} names it as its backbone, and a checkpoint may send nothing to the Hub"):
        plan = parse_configuration({**saved.run.config, **idle, "backbone": saved.run.backbone_options})
        plan = dataclasses.replace(plan, task=dataclasses.replace(plan.task, compile=False))
        backbone = plan.make_backbone(saved.run)
    task = plan.make_task(backbone, saved.run.class_names)
    saved.check_fits(task)
    task.load_state_dict(saved.content["state_dict"])
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    network = TrainedNetwork(
        task,
        eval_preprocessing(plan.data, Preprocessing(**saved.run.inputs), backbone.config.num_channels),
        category_ids=saved.run.category_ids,
        decoding=Decoding.of(plan.data),
        fitted=read_calibration(home, task),
        origin=f"checkpoint {path}",
        fast=plan.backbone.source.fast,
        told=partial(facts_of_run, path, saved.run),
    )
    return checked_network(network, device)


def checked_network(network: TrainedNetwork, device: str) -> TrainedNetwork:
    """A network on a device ("auto": a GPU where there is one), which refuses weights and maps that are not finite."""
    demand_finite(network.origin, network.task.parameters())
    # a detector leaves boxes without a finite score out, so that its maps are looked at too
    network.backbone.register_forward_hook(FiniteMaps(network.origin))
    return network.to(chosen_device(device))


def chosen_device(name: str) -> torch.device:
    """The device of a name, "auto" and "gpu" among them. Raises ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(f"device={name!r} is not here ({first_line(error)}); use 'auto' or 'cpu'") from error
    if device.type == "meta":
        raise ValueError("device='meta' holds no numbers; use 'auto' or 'cpu'")
    return device


class FiniteMaps:
    """A forward hook: ValueError for maps that are not finite."""

    def __init__(self, origin: str):
        self.origin = origin

    @torch.compiler.disable
    def __call__(self, module: nn.Module, given: Any, output: Any) -> None:
        demand_finite(self.origin, output.feature_maps)


def demand_finite(origin: str, numbers: Iterable[Tensor]) -> None:
    """Raise ValueError for numbers that are not finite, which predict nothing."""
    if not all(values.isfinite().all() for values in numbers):
        raise ValueError(
            f"predict: {origin} gives numbers that are not finite (nan or inf), because its weights or its mean and "
            "std are broken; take another checkpoint"
        )
