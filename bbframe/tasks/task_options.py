"""The options of tasks, and of the losses and metrics that they choose; light, so that errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from bbframe.registry import PartOptions, parse_part
from bbframe.schema import Length, Name, Options, Range, Rate

Loss = Annotated[PartOptions, partial(parse_part, "loss")]
Metric = Annotated[PartOptions, partial(parse_part, "metric")]


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Options):
    """How a backbone is trained, whatever the task.

    `freeze` is "none", "all", or an index k: the stem and the stages up to k keep their weights. Frozen parts stay in
    eval mode; `batch_norm="eval"` fixes the batch statistics of the whole backbone.
    """

    precisions: ClassVar[tuple[str, ...] | None] = None  # that the task can be trained in; None: any

    prefix: ClassVar[str] = "task: "

    name: Name
    freeze: Literal["none", "all"] | Annotated[int, Range(0, 1000)] = "none"
    batch_norm: Literal["train", "eval"] = "train"
    activation_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class CrossEntropyOptions:
    """Cross-entropy has no options of its own."""

    name: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions:
    """The metrics of `bbframe.tasks.metrics`, which have no options of their own."""

    name: Literal["accuracy", "top5", "f1"] = "accuracy"


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(TaskOptions):
    """Image classification. `label_smoothing` is the share of each label that is spread over all classes.

    `metrics` are measured beside accuracy, top5 (of six classes or more) and f1. `unfamiliar` makes the trained
    network tell images that are unlike those of the training; for that it looks again at some of them.
    """

    name: Literal["classification"] = "classification"
    loss: Loss = CrossEntropyOptions()
    label_smoothing: Rate = 0.0
    metrics: Annotated[tuple[Metric, ...], Length(0, 100)] = ()
    unfamiliar: bool = True


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(TaskOptions):
    """Object detection, with instance masks where the head predicts them."""

    precisions = ("32-true", "16-mixed", "bf16-mixed")  # others would round the boxes too

    name: Literal["detection"] = "detection"
