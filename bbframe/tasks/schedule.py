"""Schedules: the factor on every learning rate as a function of the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Callable

from bbframe.tasks.optimizer_options import ConstantOptions, CosineOptions, MultiStepOptions, ScheduleOptions

Factor = Callable[[int], float]


def constant(options: ConstantOptions, total_steps: int, steps_per_epoch: float) -> Factor:
    """The same rate to the end."""
    return _after_warmup(options, total_steps, steps_per_epoch, lambda step, warmup: 1.0)


def cosine(options: CosineOptions, total_steps: int, steps_per_epoch: float) -> Factor:
    """Half a cosine (Loshchilov and Hutter, arXiv:1608.03983) down to `final`."""

    def fall(step: int, warmup: int) -> float:
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        return options.final + (1 - options.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return _after_warmup(options, total_steps, steps_per_epoch, fall)


def multistep(options: MultiStepOptions, total_steps: int, steps_per_epoch: float) -> Factor:
    """A step down by `gamma` at each milestone."""
    steps = [round(total_steps * milestone) for milestone in options.milestones]
    return _after_warmup(
        options, total_steps, steps_per_epoch, lambda step, warmup: options.gamma ** sum(step >= m for m in steps)
    )


def _after_warmup(
    options: ScheduleOptions, total_steps: int, steps_per_epoch: float, factor: Callable[[int, int], float]
) -> Factor:
    """A linear rise over the first epochs, then `factor` of the step and of the number of steps that rose."""
    warmup = min(round(options.warmup_epochs * steps_per_epoch), total_steps)
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else factor(step, warmup)
