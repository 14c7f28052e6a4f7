"""A sweep as the plain data of its page: tables, costs, the effect of each option, jobs without a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbframe.files import read_yaml, visible
from bbframe.report.page.run_page import PAGE
from bbframe.report.page.sweep_results import (
    LostJob,
    Measured,
    OptionEffect,
    OptionValue,
    RankedTable,
    RunSummary,
    SettingSummary,
    SweepSummary,
)
from bbframe.sweep.comparable import split_of
from bbframe.sweep.job_results import is_finite
from bbframe.sweep.leaderboard_table import count_runs, table_head, table_notes
from bbframe.sweep.ranking import Leaderboard, Ranking
from bbframe.sweep.setting_results import SEEDED, Estimate, Setting
from bbframe.sweep.statistics import t_interval
from bbframe.sweep.ties import Verdict

MOST_VALUES = 12  # an option of numbers with more values than this is drawn, and not averaged
UNSET = "(not given)"


def summarise_sweep(sweep_folder: Path, board: Leaderboard) -> SweepSummary:
    """What the page of a sweep shows."""
    lost = [
        LostJob(str(job["folder"]), label, str(job["status"]), visible(str(job["error"])), _has_page(job))
        for label, job in board.lost
    ]
    return SweepSummary(
        name=visible(sweep_folder.absolute().name),
        overrides=_overrides(sweep_folder / "sweep.yaml"),
        tables=[_table(ranking) for ranking in board.rankings],
        lost=lost,
    )


def _overrides(file: Path) -> list[str]:
    """The overrides of the sweep's command, from its record; none without one."""
    if not file.is_file():
        return []
    found = read_yaml(file, dict).get("overrides")
    return [str(line) for line in found] if isinstance(found, list) else []


def _has_page(run: Mapping[str, Any]) -> bool:
    return (Path(run["path"]) / PAGE).is_file()


def _table(ranking: Ranking) -> RankedTable:
    runs = [_run(run, setting, ranking) for setting in ranking.settings for run in setting.runs]
    pairs = zip(ranking.settings, ranking.verdicts, strict=True)
    return RankedTable(
        head=table_head(ranking),
        reason=ranking.reason,
        metric=ranking.metric,
        mode=ranking.mode,
        parts=ranking.parts,
        settings=[_setting(setting, verdict, ranking) for setting, verdict in pairs],
        effects=option_effects(ranking.settings, ranking.part, ranking.metric),
        runs=runs,
        notes=table_notes(ranking),
    )


def _setting(setting: Setting, verdict: Verdict, ranking: Ranking) -> SettingSummary:
    first = setting.runs[0]
    return SettingSummary(
        label=setting.label,
        backbone=visible(str(first.get("backbone"))),
        source=visible(str(first.get("source"))),
        costs={
            **{name: setting.mean(name) for name in ("params", "gmacs", "latency_seconds", "epochs")},
            "seconds": setting.seconds(),
        },
        scores={part: _measured(setting.estimate(part, ranking.metric)) for part in ranking.parts},
        runs=count_runs(setting),
        verdict="cannot be told" if verdict.word == "unknown" else verdict.word,
        basis=verdict.by if verdict.difference else "",
    )


def _measured(estimate: Estimate | None) -> Measured | None:
    return None if estimate is None else Measured(estimate.mean, estimate.low, estimate.high, estimate.over)


def _run(run: Mapping[str, Any], setting: Setting, ranking: Ranking) -> RunSummary:
    scores: dict[str, float | None] = {}
    for part in ranking.parts:
        value = (run.get(part) or {}).get(ranking.metric)
        scores[part] = value if is_finite(value) else None
    seconds = (run.get("seconds") or {}).get("total")
    place = str(run["folder"]), setting.label, run.get("seed"), split_of(run)
    return RunSummary(*place, scores, seconds if is_finite(seconds) else None, _has_page(run))


def option_effects(settings: Sequence[Setting], part: str, metric: str) -> list[OptionEffect]:
    """What each option that varies among settings does to their metric, in the order of the overrides.

    An option is the key of an override; a setting without it has the value "(not given)".
    """
    rows = []
    for setting in settings:
        estimate = setting.estimate(part, metric)
        if estimate is not None:
            rows.append((setting.label, _options(setting), estimate.mean))
    effects = []
    for key in dict.fromkeys(key for _, options, _ in rows for key in options):
        groups: dict[str, list[float]] = {}
        for _, options, mean in rows:
            groups.setdefault(options.get(key, UNSET), []).append(mean)
        if len(groups) < 2:
            continue
        numbers = [(_as_float(options.get(key)), mean, label) for label, options, mean in rows]
        points = [(x, mean, label) for x, mean, label in numbers if x is not None]
        numeric = len(points) == len(rows)
        values = [] if numeric and len(groups) > MOST_VALUES else [_value(*item) for item in groups.items()]
        values.sort(key=lambda one: (_as_float(one.value) if numeric else 0) or 0)
        effects.append(OptionEffect(key, values, points if numeric else []))
    return effects


def _options(setting: Setting) -> dict[str, str]:
    """The values of a setting's overrides by their keys, without the seeds."""
    lines = [str(line) for line in setting.runs[0]["overrides"] if not SEEDED.match(str(line))]
    pairs = (line.lstrip("+~").partition("=") for line in lines)
    return {visible(key): visible(value) for key, _, value in pairs}


def _as_float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if is_finite(value) else None


def _value(value: str, means: list[float]) -> OptionValue:
    return OptionValue(value, len(means), Measured(*t_interval(means), "settings"))
