"""How far a sweep has come, from what its jobs have left in their folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bbframe.sweep.job_lock import LOCK, is_running
from bbframe.sweep.jobs import LEFT_OUT, Job, read_result

HERE = Path()


@dataclass(frozen=True)
class Progress:
    """Counts of jobs, what runs now ((overrides, epochs done) each), the best (overrides, metric, value) so far by
    validation, and about how many seconds are left; None when no job has ended."""

    total: int
    done: int
    failed: int
    left_out: int
    running: Sequence[tuple[str, int]]
    best: tuple[str, str, float] | None
    seconds_left: float | None

    def line(self) -> str:
        """The progress as one line."""
        words = [f"{self.done} of {self.total} done"]
        words += [f"{count} {what}" for count, what in ((self.failed, "failed"), (self.left_out, "left out")) if count]
        if self.best:
            label, metric, value = self.best
            words.append(f"best {metric} {value:.4f} ({label})")
        if self.seconds_left:
            words.append(f"about {span(self.seconds_left)} left")
        return ", ".join(words)


def span(seconds: float) -> str:
    """A time to read: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def label(job: Job, jobs: Sequence[Job]) -> str:
    """What sets a job apart from the others."""
    if len(jobs) == 1:
        return job.folder.name
    shared = set.intersection(*(set(other.overrides) for other in jobs))
    return " ".join(line for line in job.overrides if line not in shared) or job.folder.name


def observe(
    jobs: Sequence[Job], total: int, at_once: int, started: float, before: int = 0, home: Path = HERE
) -> Progress:
    """The progress of a sweep of `total` jobs, `at_once` at a time, of which `before` were done and are not in `jobs`.

    The jobs' folders are relative to `home`. `started` is when this command began, in seconds since the epoch: the
    time left comes from what has ended since.
    """
    results, failed, left_out, running = [], 0, 0, []
    jobs = [replace(job, folder=home / job.folder) for job in jobs]
    for job in jobs:
        if result := read_result(job.folder):
            results.append((job, result))
        elif (job.folder / "error.txt").exists():
            failed += 1
        elif (job.folder / LEFT_OUT).exists():
            left_out += 1
        elif (job.folder / LOCK).exists() and is_running(job.folder):
            running.append((label(job, jobs), epochs_done(job.folder)))
    new = [r["seconds"]["total"] for job, r in results if (job.folder / "metrics.json").stat().st_mtime >= started]
    done = before + len(results)
    waiting = total - done - failed - left_out
    seconds = waiting * sum(new) / len(new) / max(1, at_once) if new and waiting else None
    return Progress(total, done, failed, left_out, running, _best(results, jobs), seconds)


def _best(results: Sequence[tuple[Job, dict[str, Any]]], jobs: Sequence[Job]) -> tuple[str, str, float] | None:
    scored = [
        (value if r.get("mode", "max") == "max" else -value, job, r["metric"], value)
        for job, r in results
        if (value := (r.get("val") or {}).get(r["metric"])) is not None
    ]
    if not scored:
        return None
    _, job, metric, value = max(scored, key=lambda row: row[0])
    return label(job, jobs), f"val/{metric}", value


def epochs_done(folder: Path) -> int:
    """The epochs that a run's metrics.csv tells of, 0 when there is none yet."""
    with suppress(OSError, ValueError, KeyError), (folder / "metrics.csv").open(encoding="utf-8") as file:
        return max((int(row["epoch"]) for row in csv.DictReader(file) if row.get("epoch")), default=0)
    return 0
