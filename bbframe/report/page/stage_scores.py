"""The picture of a ranking: the score of every stage of every backbone, which shows what levels matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbframe.report.page.html_page import Section
from bbframe.report.ranking_words import (
    KIND_NAMES,
    backbone_label,
    is_chosen,
    is_measured,
    relative_depths,
    score_keys,
    score_meaning,
    score_name,
    stage_label,
    untrained_notice,
    with_interval,
    with_untrained,
)

MOST_BACKBONES = 200  # in the picture
MOST_ROWS = 1500  # of the table of numbers
NOTE = (
    "A row is a backbone, its cells are its stages from the input to the output; the stronger its colour, the better "
    "a stage alone. Stages with a frame were chosen together. A click on a name puts it into the chart or out of it."
)


def stage_sections(ranking: Mapping[str, Any]) -> list[Section]:
    """The score by stage as a picture and as a table; nothing when no backbone has stages."""
    keys, backbones = score_keys(ranking), [one for one in ranking["backbones"] if one["stages"]]
    if not keys or not backbones:
        return []
    scores = [{"name": score_name(key), "words": score_meaning(ranking, key)} for key in keys]
    rows = [row for one in backbones[:MOST_BACKBONES] for row in _rows(one, keys)]
    notice = untrained_notice(ranking)
    cut = f" The first {MOST_BACKBONES} of {len(backbones)}." if len(backbones) > MOST_BACKBONES else ""
    data = {"scores": scores, "rows": rows, "title": with_untrained("Score by stage", ranking), "notice": notice}
    return [
        Section("Stages", "stage_scores", data, f"{notice} {NOTE}{cut}".strip()),
        _numbers(ranking, keys),
        *_steps(ranking),
    ]


def _rows(backbone: Mapping[str, Any], keys: list[str]) -> list[dict[str, Any]]:
    """A row for each kind of features that a backbone has."""
    stages = backbone["stages"]
    depths = relative_depths(stages)
    kinds = list(dict.fromkeys(str(stage.get("kind", "mean")) for stage in stages))
    rows = []
    for kind in kinds:
        own = [
            (stage, depth) for stage, depth in zip(stages, depths, strict=True) if stage.get("kind", "mean") == kind
        ]
        suffix = "" if kind == "mean" else f", {KIND_NAMES.get(kind, kind)}"
        cells = [
            {
                "name": stage["name"],
                "depth": round(depth, 4),
                "stride": stage.get("stride"),
                "channels": stage.get("channels"),
                "chosen": is_chosen(stage, backbone),
                **{
                    end: [_rounded((stage.get(end) or {}).get(key)) for key in keys]
                    for end in ("scores", "low", "high")
                },
            }
            for stage, depth in sorted(own, key=lambda pair: pair[1])
        ]
        rows.append({"name": backbone_label(backbone) + suffix, "verdict": backbone.get("verdict"), "cells": cells})
    return rows


def _rounded(value: Any) -> float | None:
    return round(float(value), 5) if is_measured(value) else None


def _numbers(ranking: Mapping[str, Any], keys: list[str]) -> Section:
    words = [{"title": "backbone"}, {"title": "stage"}, {"title": "chosen"}]
    counts = [{"title": title, "number": True} for title in ("stride", "channels", *map(score_name, keys))]
    stages = [(backbone, stage) for backbone in ranking["backbones"] for stage in backbone["stages"]]
    rows = [
        [
            backbone_label(backbone),
            stage_label(stage),
            "chosen" if is_chosen(stage, backbone) else "",
            stage.get("stride"),
            stage.get("channels"),
            *(_score_cell(stage, key) for key in keys),
        ]
        for backbone, stage in stages[:MOST_ROWS]
    ]
    summary = f"The numbers of {len(stages):,} stages, with 95 % intervals"
    if len(stages) > MOST_ROWS:
        summary += f" (the first {MOST_ROWS:,})"
    data = {"columns": words + counts, "rows": rows, "filter": True, "summary": summary}
    return Section("", "table", data)


def _score_cell(stage: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = stage["scores"].get(key)
    if not is_measured(value):
        return None
    low, high = ((stage.get(end) or {}).get(key) for end in ("low", "high"))
    return {"text": with_interval(value, low, high), "sort": value}


def _steps(ranking: Mapping[str, Any]) -> list[Section]:
    """How the stages were chosen: what each one added, and the interval of that."""
    rows = []
    for backbone in ranking["backbones"][:MOST_ROWS]:
        for place, step in enumerate((backbone.get("chosen") or {}).get("steps") or (), start=1):
            gain = step.get("gain")
            added = with_interval(gain, step.get("gain_low"), step.get("gain_high"))
            cell = {"text": added, "sort": gain} if is_measured(gain) else None
            score = {"text": with_interval(step["score"], None, None), "sort": step["score"]}
            stage = stage_label({"name": step["stage"], "kind": step.get("kind", "mean")})
            rows.append([backbone_label(backbone), place, stage, score, cell])
    if not rows:
        return []
    columns = [{"title": "backbone"}, {"title": "step", "number": True}, {"title": "stage that joined"}]
    columns += [{"title": "score with it", "number": True}, {"title": "gain", "number": True}]
    summary = "How the stages were chosen: a stage joins when the interval of its gain is above 0"
    return [Section("", "table", {"columns": columns, "rows": rows[:MOST_ROWS], "summary": summary})]
