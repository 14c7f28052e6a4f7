"""What a search may choose: a span of numbers or a list of values for each option, as Hydra's grammar says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, both included: whole ones, every `step`, or evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None

    @property
    def lowest(self) -> float | int:
        """The lower end, a whole number among whole ones."""
        return int(self.low) if self.whole else self.low

    def __str__(self) -> str:
        words = ["log"] * self.log + ["whole"] * self.whole + ([f"step {self.step:g}"] if self.step else [])
        return " ".join([f"{self.low:g}..{self.high:g}", *words])


@dataclass(frozen=True)
class Choices:
    """Values, each as an override spells it."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)


Domain = Span | Choices
Space = Mapping[str, Domain]  # the key of an override, such as optim.lr, and its domain


def distribution(domain: Domain) -> Any:
    """The domain as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def as_override(key: str, value: Any) -> str:
    """The override that gives an option a value which was chosen for it, to four digits when it is no whole number."""
    return f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
