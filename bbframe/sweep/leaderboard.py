"""One table over a sweep: jobs that differ in the seed alone become one row, the best first, the failed ones last."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbframe.files import read_yaml, write_text
from bbframe.report.charts import CostPoint, accuracy_against_gmacs, lower_is_better
from bbframe.report.tables import aligned, markdown, number, write_csv
from bbframe.sweep.jobs import FILES


def collect(sweep_folder: Path) -> list[dict[str, Any]]:
    """The summaries of a sweep's jobs, which are its direct sub-folders: 0, 1, ..., 10.

    Each has "folder" (its name), "status" and "overrides"; with status "ok" it has the rest of its metrics.json
    too, with any other it has "error", one line.
    """
    folders = [folder for folder in sweep_folder.iterdir() if any((folder / name).is_file() for name in FILES)]
    folders.sort(key=lambda folder: (len(folder.name) if folder.name.isdigit() else math.inf, folder.name))
    return [{"folder": folder.name, **_read_job(folder)} for folder in folders]


def _read_job(folder: Path) -> dict[str, Any]:
    job: dict[str, Any] = {"status": "failed", "overrides": []}
    try:
        if (folder / "overrides.yaml").is_file():
            job["overrides"] = read_yaml(folder / "overrides.yaml", list)
        if (folder / "metrics.json").is_file():
            return {**job, **json.loads((folder / "metrics.json").read_text(encoding="utf-8"))}
    except ValueError as error:
        return {**job, "error": f"broken record: {error}"}
    if (folder / "error.txt").is_file():
        text = (folder / "error.txt").read_text(encoding="utf-8").strip()
        return {**job, "error": text.partition("\n")[0] or "it says not why"}
    return {**job, "status": "unfinished", "error": "no metrics.json: still running, or killed"}


def write(sweep_folder: Path) -> str:
    """Write leaderboard.csv and leaderboard.md, and leaderboard.png when a job succeeded; return the table as text."""
    jobs = collect(sweep_folder)
    known = [set(job["overrides"]) for job in jobs if job["overrides"]]
    shared = set.intersection(*known) if known else set()
    good = [job for job in jobs if job["status"] == "ok"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in good:
        label = _label([line for line in job["overrides"] if not line.lstrip("+").startswith("seed=")], shared)
        groups.setdefault(label or str(job.get("backbone")), []).append(job)
    validation, metric = _metrics(good)
    rows = [_average(label, group) for label, group in groups.items()]
    sign = 1 if lower_is_better(metric) else -1
    rows.sort(key=lambda row: sign * row[metric] if metric in row else math.inf)
    failed = [
        {"run": _label(job["overrides"], shared) or job["folder"], "error": f"{job['error']} (folder {job['folder']})"}
        for job in jobs
        if job["status"] != "ok"
    ]
    table, notes = _table(rows, validation, metric), [f"failed: {_with_run(row)}" for row in failed]
    columns = list(dict.fromkeys(name for row in rows + failed for name in row))
    write_csv(sweep_folder / "leaderboard.csv", [columns, *([row.get(c) for c in columns] for row in rows + failed)])
    write_text(sweep_folder / "leaderboard.md", "\n".join(markdown(table) + [f"\n{note}" for note in notes]) + "\n")
    points = [
        CostPoint(row["run"], row["gmacs"], row[metric], row[f"{metric} std"], row["seeds"])
        for row in rows
        if row["gmacs"] is not None and metric in row
    ]
    if points:
        accuracy_against_gmacs(points, metric, sweep_folder / "leaderboard.png")
    return "\n".join(aligned(table) + notes)


def _with_run(row: Mapping[str, Any]) -> str:
    """The error of a run that failed, behind the run's overrides where it does not begin with them."""
    return str(row["error"]) if str(row["error"]).startswith(row["run"]) else f"{row['run']}: {row['error']}"


def _label(overrides: Sequence[str], shared: set[str]) -> str:
    """What sets a job apart: its overrides without those that all jobs have."""
    return " ".join(sorted(set(overrides) - shared, key=list(overrides).index))


def _metrics(jobs: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The metric that chose the best epoch, and its test, which ranks the rows: the first again if none was tested."""
    name = next((job["metric"] for job in jobs), "accuracy")
    return f"val/{name}", f"test/{name}" if any(name in job["test"] for job in jobs) else f"val/{name}"


def _average(label: str, jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row: the jobs' mean and sample standard deviation of each metric, NaN left out, and their mean seconds."""
    first = {key: jobs[0].get(key) for key in ("backbone", "source", "params", "gmacs", "epochs")}
    values: dict[str, list[float]] = {}
    for job in jobs:
        for part in ("val", "test"):
            for name, value in job[part].items():
                if value is not None and math.isfinite(value):
                    values.setdefault(f"{part}/{name}", []).append(value)
    row = {"run": label, **first, "seeds": len(jobs)}
    for name, numbers in values.items():
        row[name] = statistics.fmean(numbers)
        row[f"{name} std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
    row["seconds"] = statistics.fmean(job["seconds"]["total"] for job in jobs)
    row["peak_memory_bytes"] = max(job["peak_memory_bytes"] for job in jobs)
    return row


def _table(rows: Sequence[dict[str, Any]], validation: str, metric: str) -> list[list[str]]:
    scores = list(dict.fromkeys([validation, metric]))
    table = [["run", "backbone", "source", "params (M)", "GMACs", "epochs", "seeds", *scores, "seconds"]]
    for row in rows:
        spreads = []
        for name in scores:
            spread = row.get(f"{name} std")
            spreads.append(number(row.get(name), ".4f") + ("" if spread is None else f" ± {spread:.4f}"))
        size = None if row["params"] is None else row["params"] / 1e6
        plain = [str(row[key]) for key in ("run", "backbone", "source")]
        costs = [number(size, ".2f"), number(row["gmacs"], ".3g"), str(row["epochs"]), str(row["seeds"])]
        table.append([*plain, *costs, *spreads, number(row["seconds"], ".1f")])
    return table
