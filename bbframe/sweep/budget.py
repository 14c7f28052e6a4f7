"""A limit on the time of a sweep: no job is started that would not end within it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bbframe.files import read_yaml
from bbframe.sweep.jobs import Job, read_result

NAMES = {1: "s sec second", 60: "m min minute", 3600: "h hr hour", 86400: "d day"}
UNITS = {name + end: seconds for seconds, names in NAMES.items() for name in names.split() for end in ("", "s")}
SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


def parse_budget(text: Any) -> float:
    """The seconds of a time such as 30m, 2h, "1.5 hours" or 1h30m. Raises ValueError in one line."""
    rest, seconds = str(text), 0.0
    while rest and (found := SPAN.match(rest)) and (unit := found[2].lower()) in UNITS:
        seconds, rest = seconds + float(found[1]) * UNITS[unit], rest[found.end() :]
    if rest or seconds <= 0:
        raise ValueError(f"hydra.sweeper.budget={text} must be a time with its unit, such as 90s, 30m, 2h or 1h30m")
    return seconds


@dataclass(frozen=True)
class Budget:
    """The moment, in seconds since the epoch, by which every job of the sweep in `folder` must have ended."""

    deadline: float
    folder: Path

    @classmethod
    def starting_now(cls, text: Any, folder: Path) -> Budget:
        """A budget such as 30m from this moment on. Raises ValueError in one line."""
        return cls(time.time() + parse_budget(text), folder)

    def refusal(self, job: Job) -> str | None:
        """Why a job must not start now, None when it may: its like took longer than what is left."""
        left = self.deadline - time.time()
        if left <= 0:
            return "hydra.sweeper.budget is used up"
        expected = expected_seconds(job.config, _results(self.folder))
        if expected is not None and expected > left:
            return f"its like took up to {expected:.0f} s, and hydra.sweeper.budget leaves {left:.0f} s"
        return None


def expected_seconds(config: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> float | None:
    """The longest time that the like of a job has taken: the same backbone, data and number of epochs.

    None when none of its like has ended.
    """
    mine = _kind(config)
    times = [result["seconds"]["total"] for result in results if _kind(result["config"]) == mine]
    return max(times, default=None)


FOUND = ("revision", "sha256", "bits")  # what a run adds to its record


def _kind(config: Mapping[str, Any]) -> list[Any]:
    """What decides how long a job takes: not its labels, its seed or its rates."""
    groups = [config.get(group) or {} for group in ("backbone", "head", "task", "data")]
    kept = [{key: value for key, value in group.items() if key not in FOUND} for group in groups]
    return [*kept, *((config.get("trainer") or {}).get(key) for key in ("max_epochs", "max_steps", "precision"))]


def _results(folder: Path) -> list[dict[str, Any]]:
    """The results of the sweep's finished jobs, each with its recorded configuration."""
    files = sorted(folder.glob("*/metrics.json"))
    return [result for file in files if (result := _result(file.parent, file.stat().st_mtime_ns))]


@lru_cache(maxsize=10_000)
def _result(folder: Path, written: int) -> dict[str, Any] | None:
    result, record = read_result(folder), folder / "config.yaml"
    if result is None or result["status"] != "ok" or not record.is_file():
        return None
    return {**result, "config": read_yaml(record, dict)}
