"""The options of optimisers and schedules; light, so that errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bbframe.schema import demand


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """`lr` is the head's learning rate, and the backbone's too unless `backbone_lr` is given.

    `layer_decay` multiplies the backbone's rate once for every block between a weight and the last block. Weight
    decay applies to the weights of linear layers and convolutions alone.
    """

    name: str
    lr: float = 1e-3
    backbone_lr: float | None = None
    layer_decay: float | None = None
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        for key in ("lr", "backbone_lr"):
            value = getattr(self, key)
            rule = "must be above 0; task.freeze=all keeps a backbone as it is"
            demand(value is None or value > 0, f"optim: {key}", value, rule)
        decay = self.layer_decay
        demand(decay is None or 0 < decay <= 1, "optim: layer_decay", decay, "must be above 0 and at most 1")
        demand(self.weight_decay >= 0, "optim: weight_decay", self.weight_decay, "must not be negative")


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

    name: str
    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        demand(self.warmup_epochs >= 0, "schedule: warmup_epochs", self.warmup_epochs, "must not be negative")


@dataclass(frozen=True, kw_only=True)
class CosineOptions(ScheduleOptions):
    """Then it falls as a cosine, to `final` times the learning rate."""

    name: Literal["cosine"] = "cosine"
    final: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(0 <= self.final <= 1, "schedule: final", self.final, "must be within 0..1")


@dataclass(frozen=True, kw_only=True)
class MultiStepOptions(ScheduleOptions):
    """Then it is multiplied by `gamma` at each of the `milestones`, fractions of the whole training."""

    name: Literal["multistep"] = "multistep"
    milestones: tuple[float, ...] = (0.75, 0.92)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at = list(self.milestones)
        good = at == sorted(set(at)) and all(0 < milestone < 1 for milestone in at)
        demand(good, "schedule: milestones", at, "must rise within 0..1, as in [0.75, 0.92]")
        demand(0 < self.gamma < 1, "schedule: gamma", self.gamma, "must be within 0..1")


@dataclass(frozen=True, kw_only=True)
class ConstantOptions(ScheduleOptions):
    """Then it stays."""

    name: Literal["constant"] = "constant"
