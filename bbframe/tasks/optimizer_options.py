"""The options of optimisers and schedules; light, so that errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bbframe.schema import Fraction, Length, Name, Options, Range, Rate, Share, demand

LearningRate = Annotated[float, Range(0, 100, low_open=True)]


@dataclass(frozen=True, kw_only=True)
class OptimOptions(Options):
    """`lr` is the head's learning rate, and the backbone's too unless `backbone_lr` is given.

    `layer_decay` multiplies the backbone's rate once for every block between a weight and the last block. Weight
    decay applies to the weights of linear layers and convolutions alone. A rate of 0 is task.freeze=all instead.
    "auto" stands for a learning rate that the run finds before it trains.
    """

    prefix: ClassVar[str] = "optim: "

    name: Name
    lr: LearningRate | Literal["auto"] = 1e-3
    backbone_lr: LearningRate | None = None
    layer_decay: Annotated[float, Range(0, 1, low_open=True)] | None = None
    weight_decay: Share = 0.05

    @property
    def rate(self) -> float:
        """`lr` as a number, once it is one."""
        assert self.lr != "auto"
        return float(self.lr)


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(OptimOptions):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Rate, Rate] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class SGDOptions(OptimOptions):
    """Stochastic gradient descent, with Nesterov's momentum unless `momentum` is 0."""

    name: Literal["sgd"] = "sgd"
    lr: LearningRate | Literal["auto"] = 0.05
    weight_decay: Share = 5e-4
    momentum: Rate = 0.9


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(Options):
    """The learning rate rises linearly over `warmup_epochs`."""

    prefix: ClassVar[str] = "schedule: "

    name: Name
    warmup_epochs: Annotated[float, Range(0, 100_000, "epochs")] = 1.0


@dataclass(frozen=True, kw_only=True)
class CosineOptions(ScheduleOptions):
    """Then it falls as a cosine, to `final` times the learning rate."""

    name: Literal["cosine"] = "cosine"
    final: Share = 0.01


@dataclass(frozen=True, kw_only=True)
class MultiStepOptions(ScheduleOptions):
    """Then it is multiplied by `gamma` at each of the `milestones`, fractions of the whole training."""

    name: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[Fraction, ...], Length(0, 100)] = (0.75, 0.92)
    gamma: Fraction = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at = list(self.milestones)
        demand(at == sorted(set(at)), "schedule: milestones", at, "must rise within 0..1, as in [0.75, 0.92]")


@dataclass(frozen=True, kw_only=True)
class ConstantOptions(ScheduleOptions):
    """Then it stays."""

    name: Literal["constant"] = "constant"
