"""What the page of a sweep shows, as plain data that the sweep hands over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A metric with the ends of its 95 % interval, None without one, and what the interval is about."""

    mean: float
    low: float | None = None
    high: float | None = None
    over: str = ""


@dataclass(frozen=True)
class SettingSummary:
    """A row of a leaderboard: the costs by name (params, gmacs, epochs, seconds), the metric by part (val, test).

    `runs` says how many runs it averages, of how many; `verdict` how it compares to the first, `basis` by what.
    """

    label: str
    backbone: str
    source: str
    costs: dict[str, float | None]
    scores: dict[str, Measured | None]
    runs: str
    verdict: str
    basis: str


@dataclass(frozen=True)
class OptionValue:
    """The settings that have a value of an option: how many, and the mean of their metric."""

    value: str
    settings: int
    score: Measured


@dataclass(frozen=True)
class OptionEffect:
    """An option that varies: the mean metric of each value, and (value, metric, label) where all are numbers."""

    key: str
    values: list[OptionValue]
    points: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass(frozen=True)
class RunSummary:
    """A run: its folder below the sweep's, setting, seed, split, the metric by part, seconds; `page`: it has one."""

    folder: str
    setting: str
    seed: Any
    split: Any
    scores: dict[str, float | None]
    seconds: float | None
    page: bool


@dataclass(frozen=True)
class LostJob:
    """A job without a result, and why."""

    folder: str
    label: str
    status: str
    reason: str
    page: bool


@dataclass(frozen=True)
class RankedTable:
    """Settings that may be ranked, the best first.

    `head` says what orders and averages them, `notes` what is missing, `reason` why they stand apart from the first
    table. `parts` are those that were measured, the one that orders the settings first.
    """

    head: list[str]
    reason: str
    metric: str
    mode: str
    parts: list[str]
    settings: list[SettingSummary]
    effects: list[OptionEffect]
    runs: list[RunSummary]
    notes: list[str]


@dataclass(frozen=True)
class SweepSummary:
    """All that the page of a sweep shows; `overrides` are those of its command, empty where they are not known."""

    name: str
    overrides: list[str]
    tables: list[RankedTable]
    lost: list[LostJob]
