"""What a leaderboard says in a terminal and in Markdown: its head, its rows, and the notes below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bbframe.files import visible
from bbframe.report.tables import number
from bbframe.sweep.ranking import Ranking
from bbframe.sweep.setting_results import Estimate, Setting, first_values
from bbframe.sweep.ties import BY_IMAGES, PART_NAMES


def table_head(ranking: Ranking) -> list[str]:
    """What the table is ordered by, what it averages and what its intervals are."""
    metric, settings = ranking.metric, ranking.settings
    better = "higher" if ranking.mode == "max" else "lower"
    beside = f"; test {metric} stands beside it" if "test" in ranking.parts[1:] else ""
    chose = ", which chose each run's epoch" if ranking.part == "val" else ": no run has a validation"
    lines = [f"ordered by {ranking.part} {metric} ({better} is better){chose}{beside}"]
    if any(setting.lost for setting in settings) and not all(setting.lost for setting in settings):
        lines[0] += "; rows that lack a run come last"
    averages = f"averages seed{_union([s.seeds for s in settings])}"
    if any(split is not None for setting in settings for split in setting.splits):
        averages += f" and split{_union([s.splits for s in settings])}"
    estimates = [setting.estimate(part, metric) for setting in settings for part in ranking.parts]
    over = {estimate.over for estimate in estimates if estimate}
    kinds = [
        f"± is the 95 % Student-t interval of the mean over {kind}" for kind in ("seeds", "splits") if kind in over
    ]
    if any(len(setting.seeds) == 2 for setting in settings) and "seeds" in over:
        kinds[0] += " (wide for two seeds: three or more tell much more)"
    if "images" in over:
        kinds.append("[low, high] is the 95 % bootstrap interval over the test images of a single run")
    lines.append("; ".join([averages, *kinds]))
    measured = {verdict.by for verdict in ranking.verdicts if verdict.difference}
    if measured - {BY_IMAGES}:
        lines.append(
            f"tied: the paired t interval of the {PART_NAMES[ranking.part]} difference to the first, over common "
            "seeds or splits, holds 0"
        )
    if BY_IMAGES in measured:
        lines.append(
            "*: fewer than two common seeds, so one run of each was compared on the test images (paired bootstrap), "
            "which says nothing about another seed"
        )
    return lines


def _union(values: Sequence[Sequence[Any]]) -> str:
    """All values, and a word where not every setting has them all."""
    union = list(dict.fromkeys(value for group in values for value in group))
    several = "s" if len(union) > 1 else ""
    rest = " (not every row has them all)" if any(len(group) < len(union) for group in values) else ""
    return f"{several} {first_values(union)}{rest}"


def table_rows(ranking: Ranking) -> list[list[str]]:
    """The header and a row a setting, as text."""
    scores = [f"{part} {ranking.metric}" for part in ranking.parts]
    table = [["run", "backbone", "source", "params (M)", "GMACs", "epochs", "runs", *scores, "vs first", "seconds"]]
    for setting, verdict in zip(ranking.settings, ranking.verdicts, strict=True):
        first, size = setting.runs[0], setting.mean("params")
        plain = [setting.label, visible(str(first.get("backbone"))), visible(str(first.get("source")))]
        costs = [number(None if size is None else size / 1e6, ".2f"), number(setting.mean("gmacs"), ".3g")]
        values = [_written(setting.estimate(part, ranking.metric)) for part in ranking.parts]
        word = "?" if verdict.word == "unknown" else verdict.word
        word += "*" if verdict.by == BY_IMAGES else ""
        seconds = number(setting.seconds(), ".1f")
        table.append(
            [*plain, *costs, number(setting.mean("epochs"), ".3g"), count_runs(setting), *values, word, seconds]
        )
    return table


def count_runs(setting: Setting) -> str:
    """How many runs a row averages, of how many that were started."""
    count, started = len(setting.runs), len(setting.runs) + len(setting.lost)
    return str(count) if count == started else f"{count} of {started}"


def _written(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.4f}"
    if estimate.over == "images":
        return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
    return f"{estimate.mean:.4f} ± {estimate.high - estimate.mean:.4f}"


def table_notes(ranking: Ranking) -> list[str]:
    """What a reader of a row must know: runs that its mean lacks, and why a row cannot be compared."""
    notes = []
    for setting, verdict in zip(ranking.settings, ranking.verdicts, strict=True):
        if setting.lost:
            seeds = f"{len(setting.runs)} of {len(setting.runs) + len(setting.lost)} runs"
            notes.append(f"{setting.label}: averages {seeds}; the others have no result, see below")
        if missing := setting.without(ranking.metric):
            folders = ", ".join(str(run["folder"]) for run in missing)
            notes.append(f"{setting.label}: val {ranking.metric} is no finite number in {folders}; it is left out")
        if verdict.word == "unknown":
            notes.append(
                f"{setting.label}: it cannot be told whether it differs from the first: {visible(verdict.by)}"
            )
    return notes
