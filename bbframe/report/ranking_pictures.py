"""The pictures of a ranking: the score of every stage of every backbone, and the score against latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bbframe.report.chart_style import BLUE, GREY, ORANGE, RED, chart_style, save_picture
from bbframe.report.charts import CostPoint, log_scale, place_labels
from bbframe.report.pareto_front import pareto_front
from bbframe.report.ranking_words import (
    KIND_NAMES,
    backbone_label,
    is_chosen,
    is_finite,
    score_name,
    untrained_notice,
    with_untrained,
)
from bbframe.report.text_drawing import shortened

MOST_ROWS = 40  # of a picture
WIDE = 5  # an axis of costs is logarithmic where the largest is more than so often the smallest
SHADES = LinearSegmentedColormap.from_list("shades", ["#f2f7fb", "#b9d7ea", "#5aa5d0", BLUE])
VERDICTS = {"first": (ORANGE, "first"), "tied": (BLUE, "tied with the first"), "behind": (GREY, "behind")}


@chart_style()
def score_by_stage(ranking: Mapping[str, Any], out: Path) -> None:
    """Draw a cell for each stage of each backbone, framed where it was chosen, beside the score of the chosen ones.

    The cells of a row are its stages from input to output. Raises ValueError when no backbone has a stage with a
    score.
    """
    key = str(ranking["score"])
    rows = [
        (one, kind, own)
        for one in ranking["backbones"]
        for kind in dict.fromkeys(str(stage.get("kind", "mean")) for stage in one["stages"])
        if (own := [s for s in one["stages"] if s.get("kind", "mean") == kind and is_finite(s["scores"].get(key))])
    ]
    if not rows:
        raise ValueError(f"rank: no backbone has a stage with the score {key!r}, so there is nothing to draw")
    shown = rows[:MOST_ROWS]
    figure = Figure(figsize=(11, 2.1 + 0.3 * len(shown)), layout="constrained")
    cells, scores = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    _draw_cells(cells, shown, key)
    _draw_scores(scores, shown, key)
    cut = f", the first {len(shown)} of {len(rows)} rows" if len(rows) > len(shown) else ""
    figure.suptitle(with_untrained(f"Score by stage{cut}", ranking))
    if notice := untrained_notice(ranking):
        figure.supxlabel(notice, fontsize=9, color=RED)
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
    axes.set_yticks(range(len(rows)), [_row_name(one, kind) for one, kind, _ in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{score_name(key)} of each stage alone (frame: chosen)")


def _row_name(one: Mapping[str, Any], kind: str) -> str:
    name = shortened(backbone_label({**one, "untrained": False}), 34)
    suffix = "" if kind == "mean" else f", {KIND_NAMES.get(kind, kind)}"
    return f"{name}{suffix}{' (untrained)' if one.get('untrained') else ''}"


def _draw_scores(axes: Axes, rows: list[tuple[Any, str, list[Any]]], key: str) -> None:
    drawn = set()
    for place, (one, _, _) in enumerate(rows):
        if one["name"] in drawn or not is_finite(one.get("score")):
            continue
        drawn.add(one["name"])
        colour, _ = VERDICTS.get(str(one.get("verdict")), (GREY, ""))
        if is_finite(one.get("low")) and is_finite(one.get("high")):
            axes.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(one["score"], place, "o", color=colour, markersize=6)
    for verdict, (colour, words) in VERDICTS.items():
        if any(one.get("verdict") == verdict for one, _, _ in rows):
            axes.plot([], [], "o-", color=colour, label=words)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.margins(x=0.08)
    axes.set(title="chosen stages", xlabel=f"{score_name(key)}, 95 % interval")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / max(1.5, 0.3 * len(rows))), fontsize=8, ncols=1)


@chart_style()
def score_against_latency(ranking: Mapping[str, Any], out: Path) -> None:
    """Draw the score of each backbone against the measured time of one image, with the Pareto front.

    Raises ValueError when no backbone has both.
    """
    points = [
        CostPoint(
            shortened(backbone_label(one), 40), 1e3 * one["latency_seconds"], one["score"], *_ends(one), over="images"
        )
        for one in ranking["backbones"]
        if is_finite(one.get("score")) and is_finite(one.get("latency_seconds"))
    ]
    if not points:
        raise ValueError("rank: no backbone has a score and a measured latency, so there is nothing to draw")
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    front = pareto_front([(point.cost, point.mean) for point in points], "max")
    for index, point in enumerate(points):
        low, high = point.ends
        bar = None if point.low is None else [[max(0, point.mean - low)], [max(0, high - point.mean)]]
        colour = ORANGE if index in front else BLUE
        axes.errorbar(
            point.cost, point.mean, bar, fmt="o", color=colour, ecolor=GREY, capsize=4, markersize=7, zorder=3
        )
    ends = [points[index] for index in front]
    costs = [point.cost for point in points]
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        log_scale(axes, "x")
    axes.margins(0.2, 0.15)
    right = [*(point.cost for point in ends), max(costs)]
    steps = [*(point.mean for point in ends), ends[-1].mean]
    axes.step(right, steps, where="post", color=ORANGE, label="Pareto front: nothing faster scores as well")
    axes.grid(True)
    axes.legend(loc="lower right")
    name = score_name(str(ranking["score"]))
    axes.set(xlabel="measured forward time of one image (ms)", ylabel=f"{name} (bars: 95 % interval over images)")
    figure.suptitle(with_untrained(f"{name} against latency", ranking))
    if notice := untrained_notice(ranking):
        figure.supxlabel(notice, fontsize=9, color=RED)
    place_labels(figure, axes, points)
    save_picture(figure, out)


def _ends(one: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = one.get("low"), one.get("high")
    return (low, high) if is_finite(low) and is_finite(high) else (None, None)
