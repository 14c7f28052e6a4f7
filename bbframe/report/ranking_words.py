"""How a ranking is put into words, in the same way in its table, pictures and page; it reads the data of rank.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bbframe.files import visible

SCORE_NAMES = {
    "ridge": "ridge",
    "knn": "kNN",
    "lda": "LDA",
    "logme": "LogME",
    "box_r2": "box R²",
    "box_r2_small": "box R², small boxes",
    "box_r2_medium": "box R², medium boxes",
    "box_r2_large": "box R², large boxes",
}
KIND_NAMES = {"mean": "mean", "class_token": "class token"}


def score_name(key: str) -> str:
    """A score as a title says it, such as "kNN" of "knn"."""
    return SCORE_NAMES.get(key) or visible(key.replace("_", " "))


def backbone_label(backbone: Mapping[str, Any]) -> str:
    """A backbone's name, which says when its weights are untrained."""
    name = visible(str(backbone["name"]))
    return f"{name} (untrained)" if backbone.get("untrained") else name


def untrained_notice(ranking: Mapping[str, Any]) -> str:
    """Which weights are untrained, as a sentence; "" when all are trained."""
    backbones = ranking["backbones"]
    names = [visible(str(one["name"])) for one in backbones if one.get("untrained")]
    if not names and not ranking.get("untrained"):
        return ""
    if not names or len(names) == len(backbones):
        return "All weights are untrained: these scores say nothing about trained networks."
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"Some weights are untrained: {listed}."


def with_untrained(title: str, ranking: Mapping[str, Any]) -> str:
    """A title, which says when weights are untrained."""
    notice = untrained_notice(ranking)
    if not notice:
        return title
    return f"{title} ({'some weights untrained' if notice.startswith('Some') else 'untrained weights'})"


def is_measured(value: Any) -> bool:
    """Whether a value is a number that can be shown."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def with_interval(value: Any, low: Any, high: Any, decimals: int = 3) -> str:
    """A score with its 95 % interval: "0.971 [0.960, 0.980]"; a dash without a value."""
    if not is_measured(value):
        return "-"
    ends = f" [{low:.{decimals}f}, {high:.{decimals}f}]" if is_measured(low) and is_measured(high) else ""
    return f"{value:.{decimals}f}{ends}"


def scaled_cell(value: Any, form: str, text: str = "", factor: float = 1) -> dict[str, Any] | None:
    """A cell of a page's table that is sorted by its value, with a `text` of its own; none without a value."""
    return {"text": text or format(value * factor, form), "sort": value} if is_measured(value) else None


def stage_label(stage: Mapping[str, Any]) -> str:
    """A stage's name, with the kind of its features where that is not the mean."""
    kind = str(stage.get("kind", "mean"))
    name = visible(str(stage["name"]))
    return name if kind == "mean" else f"{name} ({KIND_NAMES.get(kind, visible(kind))})"


def is_chosen(stage: Mapping[str, Any], backbone: Mapping[str, Any]) -> bool:
    """Whether the features of a stage, of its kind, are among those that were chosen."""
    steps = (backbone.get("chosen") or {}).get("steps") or ()
    own = (stage["name"], stage.get("kind", "mean"))
    return any((step["stage"], step.get("kind", "mean")) == own for step in steps)


def relative_depths(stages: Sequence[Mapping[str, Any]]) -> list[float]:
    """How deep each stage lies in its network: its number over the largest, 1 for the last; a stem is at 0."""
    last = max((int(stage["index"]) for stage in stages), default=0)
    return [int(stage["index"]) / last if last else 1.0 for stage in stages]


def score_keys(ranking: Mapping[str, Any]) -> list[str]:
    """The scores that any stage has: first the one that stages are chosen by, then as rank.json names them."""
    first = str(ranking.get("stage_score") or ranking["score"])
    found = dict.fromkeys([first, str(ranking["score"]), *(ranking.get("scores") or {})])
    there = {key for backbone in ranking["backbones"] for stage in backbone["stages"] for key in stage["scores"]}
    return [key for key in found if key in there] + sorted(there - set(found))


def score_meaning(ranking: Mapping[str, Any], key: str) -> str:
    """What a score is, as rank.json says, such as "leave-one-out kNN accuracy"."""
    return visible(str((ranking.get("scores") or {}).get(key) or score_name(key)))


def score_of(ranking: Mapping[str, Any]) -> str:
    """Of which stages the score is that orders the ranking."""
    return visible(str(ranking.get("score_of") or "the chosen stages"))


def ranking_head(ranking: Mapping[str, Any]) -> list[str]:
    """What the score is and over how many images, that ties are ties, and which weights are untrained."""
    key = str(ranking["score"])
    images, rows = int(ranking.get("images") or 0), int(ranking.get("rows") or 0)
    of = f"{images:,} {visible(str(ranking.get('part') or ''))} images".replace("  ", " ")
    if rows and rows != images:
        of = f"{rows:,} boxes in {of}"
    tied = sum(one.get("verdict") == "tied" for one in ranking["backbones"])
    lines = [
        f"score [95 % interval]: {score_meaning(ranking, key)} of {score_of(ranking)}; {of} of "
        f"{visible(str(ranking['data']))}"
    ]
    if tied:
        others = "backbone" if tied == 1 else "backbones"
        lines.append(f"{tied} {others} cannot be told apart from the first: a tie is a tie, whatever the order says")
    notice = untrained_notice(ranking)
    return [*lines, notice] if notice else lines
