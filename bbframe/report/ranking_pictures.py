"""The pictures of a ranking: the score of every stage of every backbone, and the score against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bbframe.report.chart_style import BLUE, GREY, ORANGE, chart_style, save_picture
from bbframe.report.charts import log_scale
from bbframe.report.pareto_front import pareto_front
from bbframe.report.ranking_words import (
    KIND_NAMES,
    backbone_label,
    is_chosen,
    is_measured,
    score_keys,
    score_name,
    score_of,
    with_untrained,
)
from bbframe.report.text_drawing import shortened

MOST_ROWS = 40  # of a picture
PALE = "#a8b2bc"  # bars, which labels may cross
WIDE = 5  # an axis of costs is logarithmic where the largest is more than so often the smallest
SHADES = LinearSegmentedColormap.from_list("shades", ["#f2f7fb", "#b9d7ea", "#5aa5d0", BLUE])
VERDICTS = {"first": (ORANGE, "first"), "tied": (BLUE, "tied with the first"), "behind": (GREY, "behind")}


@chart_style()
def score_by_stage(ranking: Mapping[str, Any], out: Path) -> None:
    """Draw a cell for each stage of each backbone, framed where it was chosen, beside the score that orders them.

    The cells of a row are its stages from input to output. Raises ValueError when no backbone has a stage with a
    score.
    """
    key = score_keys(ranking)[0] if ranking["backbones"] else ""
    rows = [
        (one, kind, own)
        for one in ranking["backbones"]
        for kind in dict.fromkeys(str(stage.get("kind", "mean")) for stage in one["stages"])
        if (own := [s for s in one["stages"] if s.get("kind", "mean") == kind and is_measured(s["scores"].get(key))])
    ]
    if not rows:
        raise ValueError(f"rank: no backbone has a stage with the score {key!r}, so there is nothing to draw")
    shown = rows[:MOST_ROWS]
    figure = Figure(figsize=(11, 1.7 + 0.3 * len(shown)), layout="constrained")
    cells, scores = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    _draw_cells(cells, shown, key)
    _draw_scores(scores, shown, ranking)
    if handles := scores.get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    cut = f", the first {len(shown)} of {len(rows)} rows" if len(rows) > len(shown) else ""
    figure.suptitle(with_untrained(f"Score by stage{cut}", ranking))
    save_picture(figure, out)


def _draw_cells(axes: Axes, rows: list[tuple[Any, str, list[Any]]], key: str) -> None:
    values = np.array([stage["scores"][key] for _, _, own in rows for stage in own])
    low, high = float(np.quantile(values, 0.2)), float(values.max())
    shade = Normalize(low, high if high > low else low + 1, clip=True)
    for place, (one, _, own) in enumerate(rows):
        width = 1 / len(own)
        for column, stage in enumerate(sorted(own, key=lambda stage: int(stage["index"]))):
            value = float(stage["scores"][key])
            left, share = column * width, float(shade(value))
            axes.add_patch(Rectangle((left, place - 0.45), width, 0.9, facecolor=SHADES(share), edgecolor="white"))
            text = f"{value:.3f}" if width > 1 / 13 else f"{value:.2f}"
            ink, chosen = "white" if share > 0.7 else "black", is_chosen(stage, one)
            weight = "bold" if chosen else "normal"
            axes.text(left + width / 2, place, text, ha="center", va="center", color=ink, fontsize=8, weight=weight)
            if chosen:
                inside = (left + 0.002, place - 0.42), width - 0.004, 0.84
                axes.add_patch(Rectangle(*inside, fill=False, edgecolor=ORANGE, linewidth=2.2, zorder=3))
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[0, 1], xticklabels=["input", "output"])
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_yticks(range(len(rows)), [_row_name(one, kind) for one, kind, _ in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{score_name(key)} of each stage alone (frame: chosen)")


def _row_name(one: Mapping[str, Any], kind: str) -> str:
    name = shortened(backbone_label({**one, "untrained": False}), 34)
    suffix = "" if kind == "mean" else f", {KIND_NAMES.get(kind, kind)}"
    return f"{name}{suffix}{' (untrained)' if one.get('untrained') else ''}"


def _draw_scores(axes: Axes, rows: list[tuple[Any, str, list[Any]]], ranking: Mapping[str, Any]) -> None:
    drawn = set()
    for place, (one, _, _) in enumerate(rows):
        if one["name"] in drawn or not is_measured(one.get("score")):
            continue
        drawn.add(one["name"])
        colour, _ = VERDICTS.get(str(one.get("verdict")), (GREY, ""))
        if is_measured(one.get("low")) and is_measured(one.get("high")):
            axes.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(one["score"], place, "o", color=colour, markersize=6)
    for verdict, (colour, words) in VERDICTS.items():
        if any(one.get("verdict") == verdict for one, _, _ in rows):
            axes.plot([], [], "o-", color=colour, label=words)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.margins(x=0.08)
    axes.set(title=score_of(ranking), xlabel=f"{score_name(str(ranking['score']))}, 95 % interval")


@chart_style()
def score_against_latency(ranking: Mapping[str, Any], out: Path) -> None:
    """Draw the score of each backbone against the measured time of one image, with the Pareto front.

    A point holds the place of its backbone, whose name stands in a list beside the chart. Raises ValueError when no
    backbone has both.
    """
    ranked = enumerate(ranking["backbones"], start=1)
    found = [
        (i, one) for i, one in ranked if is_measured(one.get("score")) and is_measured(one.get("latency_seconds"))
    ]
    if not found:
        raise ValueError("rank: no backbone has a score and a measured latency, so there is nothing to draw")
    points = [(1e3 * one["latency_seconds"], one["score"]) for _, one in found]
    front = pareto_front(points, "max")
    figure = Figure(figsize=(10, max(5.2, 1.4 + 0.19 * min(len(found), MOST_ROWS))), layout="constrained")
    axes, names = figure.subplots(1, 2, width_ratios=[3.2, 1])
    steps = [*(points[i] for i in front), (max(cost for cost, _ in points), points[front[-1]][1])]
    costs, scores = zip(*steps, strict=True)
    axes.step(costs, scores, where="post", color=ORANGE, label="Pareto front: nothing faster scores as well", zorder=1)
    for order, ((place, one), (cost, score)) in reversed(list(enumerate(zip(found, points, strict=True)))):
        low, high = _ends(one)
        if low is not None and high is not None:
            axes.errorbar(
                cost, score, [[max(0, score - low)], [max(0, high - score)]], ecolor=PALE, capsize=3, zorder=2
            )
        colour = ORANGE if order in front else BLUE
        axes.plot(cost, score, "o", color=colour, markersize=13, markeredgecolor="white", zorder=3 + 1 / place)
        ink = "black" if order in front else "white"
        axes.text(
            cost, score, str(place), ha="center", va="center_baseline", color=ink, fontsize=8, zorder=3 + 1 / place
        )
    if min(cost for cost, _ in points) > 0 and max(costs) > WIDE * min(cost for cost, _ in points):
        log_scale(axes, "x")
    axes.margins(0.08, 0.1)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right")
    name = score_name(str(ranking["score"]))
    axes.set(xlabel="measured forward time of one image (ms)", ylabel=f"{name} (bars: 95 % interval over images)")
    _list_names(names, found, set(front))
    figure.suptitle(with_untrained(f"{name} against latency", ranking))
    save_picture(figure, out)


def _list_names(axes: Axes, found: Sequence[tuple[int, Mapping[str, Any]]], front: set[int]) -> None:
    """The places and names of the backbones, those on the front in bold."""
    axes.set_axis_off()
    shown = found[:MOST_ROWS]
    step = 1 / max(24, len(shown) + 1)
    for row, (place, one) in enumerate(shown):
        weight = "bold" if row in front else "normal"
        label = shortened(backbone_label({**one, "untrained": False}), 30) + " (untrained)" * bool(
            one.get("untrained")
        )
        axes.text(0.06, 1 - step * row, str(place), ha="right", va="top", fontsize=9, weight=weight)
        axes.text(0.1, 1 - step * row, label, va="top", fontsize=9, weight=weight)
    if len(found) > len(shown):
        axes.text(0.1, 1 - step * len(shown), f"and {len(found) - len(shown)} more", va="top", fontsize=9)


def _ends(one: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = one.get("low"), one.get("high")
    return (low, high) if is_measured(low) and is_measured(high) else (None, None)
