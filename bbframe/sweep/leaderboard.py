"""The files of a leaderboard: a row a setting, ordered by validation; what is not comparable has its own table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bbframe.files import visible, write_text
from bbframe.report.charts import CostPoint, accuracy_against_gmacs
from bbframe.report.page.sweep_page import write_sweep_page
from bbframe.report.tables import aligned, markdown, markdown_text, write_csv
from bbframe.sweep.leaderboard_table import table_head, table_notes, table_rows
from bbframe.sweep.ranking import Leaderboard, Ranking, read_leaderboard
from bbframe.sweep.setting_results import Setting, first_values
from bbframe.sweep.sweep_summary import summarise_sweep
from bbframe.sweep.ties import Verdict


def write(sweep_folder: Path) -> str:
    """Write leaderboard.csv and .md, leaderboard.png for each table that has a cost, and report.html; return the text.

    The csv has no lines of its own for what the head of the table says: its columns ordered_by, interval_over, seeds,
    splits and table say it for each row.
    """
    board = read_leaderboard(sweep_folder)
    for picture in sweep_folder.glob("leaderboard*.png"):  # of an earlier table of this sweep
        picture.unlink()
    failed = [f"{job['status']}: {_with_label(label, job)}" for label, job in board.lost]
    text: list[str] = []
    mark: list[str] = []
    for index, ranking in enumerate(board.rankings):
        head, table, notes = table_head(ranking), table_rows(ranking), table_notes(ranking)
        if index:
            head = [f"table {index + 1}, not comparable to table 1: {ranking.reason}", *head]
        elif len(board.rankings) > 1:
            head = [f"table 1 of {len(board.rankings)}", *head]
        text += [*head, *aligned(table), *notes, ""]
        mark += [
            *(f"{markdown_text(line)}  " for line in head),
            "",
            *markdown(table),
            *(f"\n{markdown_text(note)}" for note in notes),
            "",
        ]
        _draw(ranking, sweep_folder / ("leaderboard.png" if index == 0 else f"leaderboard_{index + 1}.png"))
    write_csv(sweep_folder / "leaderboard.csv", _csv(board))
    write_text(sweep_folder / "leaderboard.md", "\n".join([*mark, *(f"{markdown_text(note)}\n" for note in failed)]))
    write_sweep_page(sweep_folder, summarise_sweep(sweep_folder, board))
    return "\n".join([*text, *failed]).rstrip("\n")


def write_report(sweep_folder: Path) -> Path:
    """Write report.html alone, from what the folder holds, and return its path."""
    return write_sweep_page(sweep_folder, summarise_sweep(sweep_folder, read_leaderboard(sweep_folder)))


def _with_label(label: str, job: dict[str, Any]) -> str:
    """The error of a job, behind its label where it does not begin with that, and its folder."""
    error = visible(f"{job['error']} (folder {job['folder']})")
    return error if error.startswith(label) else f"{label}: {error}"


def _csv(board: Leaderboard) -> list[list[Any]]:
    """The rows of all tables, then the jobs without a result; the names are those of metrics.json."""
    rows: list[dict[str, Any]] = []
    for index, ranking in enumerate(board.rankings, start=1):
        for place, (setting, verdict) in enumerate(zip(ranking.settings, ranking.verdicts, strict=True), start=1):
            rows.append(_csv_row(index, place, ranking, setting, verdict))
    rows += [{"run": label, "status": job["status"], "error": _with_label(label, job)} for label, job in board.lost]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [columns, *([row.get(name) for name in columns] for row in rows)]


def _csv_row(index: int, place: int, ranking: Ranking, setting: Setting, verdict: Verdict) -> dict[str, Any]:
    first, change = setting.runs[0], verdict.difference
    row: dict[str, Any] = {"table": index, "place": place, "run": setting.label, "status": "ok"}
    row |= {key: first.get(key) for key in ("backbone", "source")}
    row |= {key: setting.mean(key) for key in ("params", "gmacs", "epochs")}
    row |= {"runs": len(setting.runs), "lost": len(setting.lost), "seeds": len(setting.seeds)}
    row |= {
        "seed_list": first_values(setting.seeds),
        "split_list": first_values([s for s in setting.splits if s is not None]),
    }
    row |= {"ordered_by": f"{ranking.part}.{ranking.metric}", "mode": ranking.mode}
    for part in ("val", "test"):
        names = [ranking.metric, *(name for run in setting.runs for name in run.get(part) or {})]
        for name in dict.fromkeys(names):
            estimate = setting.estimate(part, name)
            row[f"{part}.{name}"] = estimate and estimate.mean
            for side in ("low", "high", "std"):
                row[f"{part}_{side}.{name}"] = estimate and getattr(estimate, side)
        own = setting.estimate(part, ranking.metric)
        row[f"{part}_interval_over"] = own and own.over
    row |= {"vs_first": verdict.word, "compared_on": verdict.by, "difference": change and change.mean}
    row |= {"difference_low": change and change.low, "difference_high": change and change.high}
    row["seconds"] = setting.seconds()
    row["peak_memory_bytes"] = max((run.get("peak_memory_bytes") or 0 for run in setting.runs), default=0)
    return row


def _draw(ranking: Ranking, out: Path) -> None:
    """Draw the last shown part, which is the test where there is one, against the GMACs."""
    part, points = ranking.parts[-1], []
    for setting in ranking.settings:
        estimate, gmacs = setting.estimate(part, ranking.metric), setting.mean("gmacs")
        if estimate is not None and gmacs is not None:
            points.append(CostPoint(setting.label, gmacs, *estimate[:3], estimate.over))
    if points:
        accuracy_against_gmacs(points, f"{part} {ranking.metric}", out)
