"""The options of tasks, heads, optimisers and schedules; light, so that a configuration is checked in no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bbframe.heads.levels import check_detector


@dataclass(frozen=True, kw_only=True)
class TuningOptions:
    """How a backbone is trained, whatever the task.

    `freeze` is "none", "all", or an index k: the stem and the stages up to k keep their weights. Frozen parts stay in
    eval mode, their batch statistics and drop-outs with them; `batch_norm="eval"` fixes the statistics of the whole
    backbone.
    """

    freeze: Literal["none", "all"] | int = "none"
    batch_norm: Literal["train", "eval"] = "train"
    activation_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(TuningOptions):
    """Image classification by cross-entropy; `label_smoothing` is the share of the target spread over all classes."""

    name: Literal["classification"] = "classification"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"task: label_smoothing={self.label_smoothing} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(TuningOptions):
    """Object detection, with instance masks where the head predicts them."""

    name: Literal["detection"] = "detection"


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """`linear` averages the last map, `multi_level` all selected maps; `dropout` is the share dropped before the
    linear layer."""

    name: Literal["linear", "multi_level"] = "linear"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"head: dropout={self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """A pyramid of maps, and one of torchvision's detectors on it.

    `pyramid` is "fpn" (arXiv:1612.03144) for maps of rising strides or "simple" (arXiv:2203.16527) for one map of a
    plain transformer; null chooses by the strides. It has `channels` a level, and `extra_levels` coarser ones beyond
    those that `backbone` maps give. `num_convs` is the depth of a one-stage detector's towers. `score_threshold` and
    `nms_threshold` decide which boxes are kept; null stands for what the detector's authors chose.
    """

    name: Literal["fcos", "retinanet", "faster_rcnn", "mask_rcnn"] = "fcos"
    pyramid: Literal["fpn", "simple"] | None = None
    channels: int = 256
    extra_levels: int | None = None
    num_convs: int = 4
    anchor_scale: float | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        for key, least in (("channels", 1), ("num_convs", 1), ("detections_per_image", 1), ("extra_levels", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"head: {key}={value} must be {least} or more")
        if self.extra_levels is not None and self.extra_levels > 4:
            raise ValueError(f"head: extra_levels={self.extra_levels} must be 4 or less: each doubles the stride")
        check_detector(self.name, self.channels, self.num_convs)
        if self.anchor_scale is not None and self.anchor_scale <= 0:
            raise ValueError(f"head: anchor_scale={self.anchor_scale} must be above 0, in strides of a level")
        for key in ("score_threshold", "nms_threshold"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"head: {key}={value} must be within 0..1")


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """`lr` is the head's learning rate, and the backbone's too unless `backbone_lr` is given.

    `layer_decay` multiplies the backbone's rate once for every block between a weight and the last block. Weight
    decay is for the weights of linear layers and convolutions alone.
    """

    lr: float = 1e-3
    backbone_lr: float | None = None
    layer_decay: float | None = None
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        for key in ("lr", "backbone_lr"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"optim: {key}={value} must be above 0; task.freeze=all keeps a backbone as it is")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim: layer_decay={self.layer_decay} must be above 0 and at most 1")
        if self.weight_decay < 0:
            raise ValueError(f"optim: weight_decay={self.weight_decay} must not be negative")


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(OptimOptions):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class SGDOptions(OptimOptions):
    """Stochastic gradient descent, with Nesterov's momentum unless `momentum` is 0."""

    name: Literal["sgd"] = "sgd"
    lr: float = 0.05
    weight_decay: float = 5e-4
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The learning rate rises linearly over `warmup_epochs`."""

    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0:
            raise ValueError(f"schedule: warmup_epochs={self.warmup_epochs} must not be negative")


@dataclass(frozen=True, kw_only=True)
class CosineOptions(ScheduleOptions):
    """Then it falls as a cosine, to `final` times the learning rate."""

    name: Literal["cosine"] = "cosine"
    final: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final <= 1:
            raise ValueError(f"schedule: final={self.final} must be within 0..1")


@dataclass(frozen=True, kw_only=True)
class MultiStepOptions(ScheduleOptions):
    """Then it is multiplied by `gamma` at each of the `milestones`, fractions of the whole training."""

    name: Literal["multistep"] = "multistep"
    milestones: tuple[float, ...] = (0.75, 0.92)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"schedule: milestones={list(self.milestones)} must rise within 0..1, as in [0.75, 0.92]")
        if not 0 < self.gamma < 1:
            raise ValueError(f"schedule: gamma={self.gamma} must be within 0..1")


@dataclass(frozen=True, kw_only=True)
class ConstantOptions(ScheduleOptions):
    """Then it stays."""

    name: Literal["constant"] = "constant"
