"""The order of a sweep's settings: by validation, and only among those that are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbframe.sweep.comparable import comparable_groups
from bbframe.sweep.job_results import read_jobs
from bbframe.sweep.setting_results import Estimate, Labels, Setting, first_values, on_shared_splits, settings_of
from bbframe.sweep.ties import Verdict, compare_to_first


@dataclass
class Ranking:
    """One table: settings that may be ranked, the best first, and how each compares to the first.

    `part` is what orders them: "val", or "test" when no run has a validation. `reason` says why the settings stand
    apart from the first table's.
    """

    settings: list[Setting]
    verdicts: list[Verdict]
    metric: str
    mode: str
    part: str
    reason: str

    @property
    def tested(self) -> bool:
        """Whether a setting has a test value."""
        return any(setting.values("test", self.metric) for setting in self.settings)

    @property
    def parts(self) -> list[str]:
        """The parts that the table shows, the one that orders it first."""
        return [self.part, *(["test"] if self.tested and self.part == "val" else [])]


@dataclass
class Leaderboard:
    """All of a sweep: its tables, and the jobs without a result, each with its label."""

    rankings: list[Ranking]
    lost: list[tuple[str, dict[str, Any]]]


def read_leaderboard(sweep_folder: Path) -> Leaderboard:
    """Rank the runs of a sweep by what their folders hold."""
    jobs = read_jobs(sweep_folder)
    labels = Labels(jobs)
    lost = [job for job in jobs if job["status"] != "ok"]
    rankings: list[Ranking] = []
    for group in comparable_groups([job for job in jobs if job["status"] == "ok"]):
        for settings in on_shared_splits(settings_of(group, lost, labels)):
            reason = group.reason
            if rankings and not reason:
                reason = f"measured on split {first_values(settings[0].splits)}, on which none above was"
            rankings.append(_ranked(settings, reason))
    return Leaderboard(rankings, [(labels.of_job(job), job) for job in lost])


def _ranked(settings: Sequence[Setting], reason: str) -> Ranking:
    first = settings[0].runs[0]
    metric, mode = str(first.get("metric")), str(first.get("mode"))
    part = "val" if any(setting.values("val", metric) for setting in settings) else "test"
    sign = -1 if mode == "max" else 1
    means = {id(setting): setting.estimate(part, metric) for setting in settings}
    known = [setting for setting in settings if means[id(setting)] is not None]
    # a setting that lost a run, perhaps its worst one, does not come before one that has all of its own
    known.sort(key=lambda setting: (bool(setting.lost), sign * (means[id(setting)] or Estimate(0)).mean))
    order = [*known, *(setting for setting in settings if means[id(setting)] is None)]
    verdicts = [
        compare_to_first(order[0], setting, metric, mode, part)
        if setting in known
        else Verdict("unknown", f"no {part} value")
        for setting in order
    ]
    return Ranking(order, verdicts, metric, mode, part, reason)
