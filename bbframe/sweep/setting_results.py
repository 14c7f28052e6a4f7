"""The rows of a leaderboard: settings, each averaged over its seeds and splits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bbframe.files import visible
from bbframe.sweep.comparable import SPLIT_KEYS, ComparableRuns, split_of
from bbframe.sweep.job_results import is_finite
from bbframe.sweep.statistics import independent_means, t_interval

SEEDED = re.compile(rf"\+*(seed|data\.({'|'.join(SPLIT_KEYS)}))=")  # overrides that make no setting of their own
Unit = tuple[Hashable, Hashable]  # seed and split


class Estimate(NamedTuple):
    """The mean of a metric, and its 95 % interval over "seeds", "splits" or, for one run, test "images", if any."""

    mean: float
    low: float | None = None
    high: float | None = None
    std: float | None = None
    over: str = ""


@dataclass
class Setting:
    """Runs that differ in seed and split alone, and the same setting's runs that have no result."""

    label: str
    runs: list[dict[str, Any]]
    lost: list[dict[str, Any]]

    @property
    def seeds(self) -> list[Any]:
        """The seeds of its runs, each once."""
        return list(dict.fromkeys(run.get("seed") for run in self.runs))

    @property
    def splits(self) -> list[Any]:
        """The splits of its runs, each once; [None] for data that have one."""
        return list(dict.fromkeys(split_of(run) for run in self.runs))

    def values(self, part: str, metric: str) -> dict[Unit, float]:
        """The finite values of a metric on a part, "val" or "test", by seed and split; a repeated run counts once."""
        found: dict[Unit, list[float]] = {}
        for run in self.runs:
            value = (run.get(part) or {}).get(metric)
            if is_finite(value):
                found.setdefault((run.get("seed"), split_of(run)), []).append(value)
        return {unit: statistics.fmean(values) for unit, values in found.items()}

    def estimate(self, part: str, metric: str) -> Estimate | None:
        """The mean of a metric with its interval; None when no run has a finite value.

        Several seeds, else several splits, give Student's t; a single run has the bootstrap interval of its own test.
        """
        values = self.values(part, metric)
        if not values:
            return None
        means = independent_means(values)
        if len(set(means)) > 1:  # equal values have no spread, which is no proof of certainty
            over = "seeds" if len({seed for seed, _ in values}) > 1 else "splits"
            return Estimate(*t_interval(means), statistics.stdev(means), over)
        mean = means[0]
        if part == "test":
            for run in self.runs:
                low, high = ((run.get(f"test_{side}") or {}).get(metric) for side in ("low", "high"))
                if low is not None and high is not None and (run.get("test") or {}).get(metric) is not None:
                    return Estimate(mean, low, high, None, "images")
        return Estimate(mean)

    def without(self, metric: str) -> list[dict[str, Any]]:
        """The runs that were trained but whose validation gave no finite value of a metric."""
        missing = []
        for run in self.runs:
            value = (run.get("val") or {}).get(metric)
            if run.get("val") and not is_finite(value):
                missing.append(run)
        return missing

    def mean(self, name: str) -> float | None:
        """The mean of a number of metrics.json, such as "params"; None when no run has it."""
        found = [value for run in self.runs if is_finite(value := run.get(name))]
        return statistics.fmean(found) if found else None

    def seconds(self) -> float | None:
        """The mean of the runs' seconds in all."""
        found = [value for run in self.runs if (value := (run.get("seconds") or {}).get("total")) is not None]
        return statistics.fmean(found) if found else None


class Labels:
    """What sets jobs apart: their overrides without seeds and without what all jobs have."""

    def __init__(self, jobs: Sequence[dict[str, Any]]):
        stated = [set(map(str, job["overrides"])) for job in jobs if job["overrides"]]
        self.shared = set.intersection(*stated) if stated else set()

    def of_setting(self, job: dict[str, Any]) -> str:
        """The overrides that make the setting; empty for what all jobs have."""
        return visible(" ".join(line for line in self._own(job) if not SEEDED.match(line)))

    def of_job(self, job: dict[str, Any]) -> str:
        """The overrides that make the job, its seed with them; the folder's name without any."""
        return visible(" ".join(self._own(job))) or str(job["folder"])

    def _own(self, job: dict[str, Any]) -> list[str]:
        return [line for line in dict.fromkeys(map(str, job["overrides"])) if line not in self.shared]


def settings_of(group: ComparableRuns, lost: Sequence[dict[str, Any]], labels: Labels) -> list[Setting]:
    """The settings of comparable runs, each with the jobs among `lost` that are of it, in the order of their jobs."""
    found: dict[tuple[str, str], Setting] = {}
    for run in group.runs:
        own, backbone = labels.of_setting(run), visible(str(run.get("backbone")))
        key = (own, "" if own else backbone)
        found.setdefault(key, Setting(own or backbone, [], [])).runs.append(run)
    for job in lost:
        same = [setting for (own, _), setting in found.items() if own == labels.of_setting(job)]
        if len(same) == 1 and job["overrides"]:
            same[0].lost.append(job)
    return list(found.values())


def first_values(values: Sequence[Any]) -> str:
    """Values as text, the first twelve of them."""
    return ", ".join(map(str, values[:12])) + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def on_shared_splits(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Divide settings so that each shares a split with another one of its part: others were tested on other images."""
    parts: list[list[Setting]] = []
    for setting in settings:
        touched = [part for part in parts if any(set(one.splits) & set(setting.splits) for one in part)]
        if not touched:
            parts.append([setting])
            continue
        touched[0] += [*(one for part in touched[1:] for one in part), setting]
        parts = [part for part in parts if not any(part is other for other in touched[1:])]
    return parts
