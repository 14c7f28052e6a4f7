"""Schedules: the factor on every learning rate as a function of the optimiser's step."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from bbframe.tasks.optimizer_options import ConstantOptions, CosineOptions, MultiStepOptions, ScheduleOptions

Options = TypeVar("Options", bound=ScheduleOptions)


class Schedule(Generic[Options]):
    """A linear rise over the first epochs; `after_warmup`, which a subclass writes, says what follows."""

    def __init__(self, options: Options, total_steps: int, steps_per_epoch: float):
        self.options, self.total_steps = options, total_steps
        self.warmup = min(round(options.warmup_epochs * steps_per_epoch), total_steps)

    def __call__(self, step: int) -> float:
        return (step + 1) / (self.warmup + 1) if step < self.warmup else self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        """The factor at a step that follows the rise."""
        raise NotImplementedError


class Constant(Schedule[ConstantOptions]):
    """The same rate to the end."""

    def after_warmup(self, step: int) -> float:
        return 1.0


class Cosine(Schedule[CosineOptions]):
    """Half a cosine (Loshchilov and Hutter, arXiv:1608.03983) down to `final`."""

    def after_warmup(self, step: int) -> float:
        progress = min((step - self.warmup) / max(self.total_steps - self.warmup, 1), 1.0)
        return self.options.final + (1 - self.options.final) * 0.5 * (1 + math.cos(math.pi * progress))


class MultiStep(Schedule[MultiStepOptions]):
    """A step down by `gamma` at each milestone."""

    def after_warmup(self, step: int) -> float:
        return self.options.gamma ** sum(step >= round(self.total_steps * m) for m in self.options.milestones)
