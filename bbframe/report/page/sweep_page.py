"""The page of a sweep: its tables, what each setting costs, what each option does, and the jobs without a result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bbframe.report.page.cost_chart import CostedScore, cost_chart, is_wide
from bbframe.report.page.html_page import Section, write_page
from bbframe.report.page.run_page import PAGE
from bbframe.report.page.run_sections import decimal, duration
from bbframe.report.page.sweep_results import LostJob, Measured, RankedTable, SettingSummary, SweepSummary

MOST_ROWS = 1500  # of a table in the page


PART_WORDS = {"val": "validation", "test": "test"}
COSTS = {  # what a setting costs, by its name: the axis, and a factor
    "gmacs": ("GMACs an image", 1),
    "params": ("parameters (M)", 1e-6),
    "latency_seconds": ("measured latency of one image (ms)", 1e3),
    "seconds": ("time of a run (s)", 1),
}


def write_sweep_page(folder: Path, sweep: SweepSummary) -> Path:
    """Write report.html into a sweep's folder, and return its path. Raises ValueError when it would be too large."""
    several = len(sweep.tables) > 1
    sections = [sweep_figures(sweep)]
    for number, table in enumerate(sweep.tables, start=1):
        name = f" {number}" if several else ""
        sections += [
            *leaderboard_sections(table, f"Leaderboard{name}"),
            *cost_sections(table, f"Costs{name}"),
            *effect_sections(table, f"Options{name}"),
            runs_section(table, f"Runs{name}"),
        ]
    if sweep.lost:
        sections.append(lost_section(sweep.lost))
    if sweep.overrides:
        text = {"text": "python train.py -m " + shlex.join(sweep.overrides)}
        sections.append(Section("What was asked", "text", text, "This command repeats the sweep."))
    count = len(sweep.lost) + sum(len(table.runs) for table in sweep.tables)
    write_page(folder / PAGE, sweep.name, sections, f"a sweep of {count} run{'s' * (count != 1)}")
    return folder / PAGE


def sweep_figures(sweep: SweepSummary) -> Section:
    """The first setting of the first table, and how many runs there are."""
    figures = []
    for table in sweep.tables[:1]:
        first = table.settings[0]
        figures.append({"label": "first", "value": first.backbone, "detail": first.label})
        for part in table.parts:
            score = first.scores.get(part)
            if score is not None:
                detail = "orders the table" if part == table.parts[0] else "stands beside it"
                label = f"{PART_WORDS[part]} {table.metric}"
                figures.append({"label": label, "value": decimal(score.mean), "detail": f"{detail}{_ends(score)}"})
        tied = sum(setting.verdict == "tied" for setting in table.settings)
        if tied:
            figures.append(
                {"label": "tied with it", "value": str(tied), "detail": "cannot be told apart from the first"}
            )
    done = [run for table in sweep.tables for run in table.runs]
    without = f"{len(sweep.lost)} without a result" if sweep.lost else "all have a result"
    figures.append({"label": "runs", "value": str(len(done) + len(sweep.lost)), "detail": without})
    seconds = [run.seconds for run in done if run.seconds is not None]
    if seconds:
        figures.append({"label": "time", "value": duration(sum(seconds)), "detail": "of all runs, one after another"})
    return Section("Result", "figures", {"figures": figures})


def _ends(score: Measured) -> str:
    return "" if score.low is None or score.high is None else f"; 95 % {decimal(score.low)} to {decimal(score.high)}"


def leaderboard_sections(table: RankedTable, heading: str) -> list[Section]:
    """The settings, the best first; those that cannot be told apart from the first stand out."""
    shown = table.settings[:MOST_ROWS]
    sources = len({setting.source for setting in shown}) > 1
    scores = [f"{PART_WORDS[part]} {table.metric}" for part in table.parts]
    costs = ["runs", "epochs", "params (M)", "GMACs", "seconds"]
    compared = {"title": "against the first", "hint": "on the same seeds and splits, or on the same test images"}
    columns: list[dict[str, Any]] = [{"title": "place", "number": True}, {"title": "setting"}]
    columns += [*({"title": title, "number": True} for title in scores), compared, {"title": "backbone"}]
    columns += [*([{"title": "source"}] if sources else []), *({"title": title, "number": True} for title in costs)]
    rows = []
    for place, setting in enumerate(shown, start=1):
        size = setting.costs.get("params")
        figures = [
            setting.runs,
            _cell(setting.costs.get("epochs"), ".3g"),
            _cell(None if size is None else size / 1e6, ".2f"),
            _cell(setting.costs.get("gmacs"), ".3g"),
            _cell(setting.costs.get("seconds"), ".1f"),
        ]
        measured = [_score_cell(setting.scores.get(part)) for part in table.parts]
        basis = " on test images" if setting.basis.startswith("test images") else ""
        words = [f"{setting.verdict}{basis}", setting.backbone, *([setting.source] if sources else [])]
        rows.append([place, setting.label, *measured, *words, *figures])
    marked = [i for i, setting in enumerate(shown) if setting.verdict in ("first", "tied")]
    data = {"columns": columns, "rows": rows, "filter": len(rows) > 5, "marked": marked}
    apart = [f"Not comparable to the first table: {table.reason}."] if table.reason else []
    note = [*apart, *(f"{line[:1].upper()}{line[1:]}." for line in table.head), *_cut(len(table.settings))]
    sections = [Section(heading, "table", data, " ".join(note))]
    if table.notes:
        count = len(table.notes)
        summary = f"{count} note{'s' * (count > 1)} about rows: missing runs, missing values, what cannot be told"
        sections.append(Section("", "text", {"text": "\n".join(table.notes), "summary": summary, "copy": False}))
    return sections


def _cut(count: int) -> list[str]:
    return [f"The first {MOST_ROWS:,} of {count:,}; leaderboard.csv has all."] if count > MOST_ROWS else []


def _cell(value: float | None, form: str) -> dict[str, Any] | None:
    return None if value is None else {"text": format(value, form), "sort": value}


def _score_cell(score: Measured | None) -> dict[str, Any] | None:
    if score is None:
        return None
    text = f"{score.mean:.4f}"
    if score.low is not None and score.high is not None:
        bootstrap = f" [{score.low:.4f}, {score.high:.4f}]"
        text += bootstrap if score.over == "images" else f" ± {score.high - score.mean:.4f}"
    return {"text": text, "sort": score.mean}


def cost_sections(table: RankedTable, heading: str) -> list[Section]:
    """The metric that orders the table against each cost, and the settings that no cheaper one reaches.

    None where there are fewer than two settings.
    """
    part, charts = table.parts[0], []
    for name, (title, factor) in COSTS.items():
        found = [
            (setting, cost * factor, score.mean)
            for setting in table.settings
            if (cost := setting.costs.get(name)) is not None and (score := setting.scores.get(part)) is not None
        ]
        if len(found) < 2:
            continue
        points = [CostedScore(_with_test(setting, table), cost, mean) for setting, cost, mean in found]
        axes = (title, f"{PART_WORDS[part]} {table.metric}")
        charts.append(cost_chart(f"{table.metric} against {title}", axes, points, table.mode, "other settings"))
    note = "The Pareto front: no other setting costs less and is as good, by the metric that orders the leaderboard."
    return [Section(heading, "chart", {"charts": charts}, note)] if charts else []


def _with_test(setting: SettingSummary, table: RankedTable) -> str:
    score = setting.scores.get("test") if "test" in table.parts[1:] else None
    return setting.label if score is None else f"{setting.label}, test {score.mean:.4f}"


def effect_sections(table: RankedTable, heading: str) -> list[Section]:
    """The mean metric of each value of each option that varies, and a chart for options that are numbers."""
    if not table.effects:
        return []
    name = f"{PART_WORDS[table.parts[0]]} {table.metric}"
    columns = [{"title": "option"}, {"title": "value"}, {"title": "settings", "number": True}]
    columns += [{"title": f"mean {name}", "number": True}]
    rows = [
        [effect.key, {"text": one.value, "sort": _number_or_text(one.value)}, one.settings, _score_cell(one.score)]
        for effect in table.effects
        for one in effect.values
    ]
    note = "The mean over all settings with the value, whatever else they are; ± is Student's 95 % interval over them."
    sections = [
        Section(heading, "table", {"columns": columns, "rows": rows[:MOST_ROWS], "filter": len(rows) > 12}, note)
    ]
    charts = []
    for effect in table.effects:
        if effect.points:
            xs = [x for x, _, _ in effect.points]
            series = [
                {
                    "name": "settings",
                    "points": [[x, y] for x, y, _ in effect.points],
                    "labels": [label for _, _, label in effect.points],
                }
            ]
            axes = {"x": {"title": effect.key, "log": is_wide(xs)}, "y": {"title": name}}
            charts.append(
                {"title": f"{table.metric} against {effect.key}", "kind": "scatter", **axes, "series": series}
            )
    return [*sections, *([Section("", "chart", {"charts": charts})] if charts else [])]


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def runs_section(table: RankedTable, heading: str) -> Section:
    """Every run, with a link to its page where it has one."""
    scores = [{"title": f"{PART_WORDS[part]} {table.metric}", "number": True} for part in table.parts]
    columns = [{"title": "run"}, {"title": "setting"}, {"title": "seed", "number": True}]
    splits = any(run.split is not None for run in table.runs)
    columns += [
        *([{"title": "split", "number": True}] if splits else []),
        *scores,
        {"title": "seconds", "number": True},
    ]
    rows = []
    for run in table.runs[:MOST_ROWS]:
        measured = [_cell(run.scores.get(part), ".4f") for part in table.parts]
        place = [_page_link(run.folder, run.page), run.setting, run.seed, *([run.split] if splits else [])]
        rows.append([*place, *measured, _cell(run.seconds, ".1f")])
    note = "" if len(table.runs) <= MOST_ROWS else f"The first {MOST_ROWS:,} of {len(table.runs):,} runs."
    return Section(heading, "table", {"columns": columns, "rows": rows, "filter": len(rows) > 5}, note)


def _page_link(folder: str, page: bool) -> dict[str, Any] | str:
    """A link from the sweep's page to a run's; the dot keeps a folder's name from being a scheme."""
    return {"text": folder, "link": f"./{quote(folder)}/{PAGE}"} if page else folder


def lost_section(jobs: Sequence[LostJob]) -> Section:
    """The jobs without a result, and why."""
    columns = [{"title": title} for title in ("job", "folder", "status", "reason")]
    rows = [[job.label, _page_link(job.folder, job.page), job.status, job.reason] for job in jobs[:MOST_ROWS]]
    note = "" if len(jobs) <= MOST_ROWS else f"The first {MOST_ROWS:,} of {len(jobs):,} jobs."
    return Section("Jobs without a result", "table", {"columns": columns, "rows": rows, "filter": len(rows) > 5}, note)
