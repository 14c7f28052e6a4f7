"""The sections of a ranking's page: its result, table, costs, failures, command and doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bbframe.report.page.cost_chart import CostedScore, cost_chart
from bbframe.report.page.html_page import Section
from bbframe.report.page.run_sections import duration
from bbframe.report.ranking_words import (
    backbone_label,
    is_measured,
    ranking_head,
    scaled_cell,
    score_meaning,
    score_name,
    untrained_notice,
    with_interval,
    with_untrained,
)

COSTS = {  # by the key of a backbone: the axis, and a factor
    "latency_seconds": ("measured forward time of one image (ms)", 1e3),
    "params": ("parameters (M)", 1e-6),
}
MOST_ROWS = 1500  # of a table
Backbones = Sequence[Mapping[str, Any]]


def rank_figures(ranking: Mapping[str, Any]) -> Section:
    """The first backbone, how sure that is, the winner of the race, and what the ranking took."""
    backbones, failed = ranking["backbones"], ranking.get("failed") or []
    figures = []
    if backbones:
        figures += _first_figures(ranking, backbones[0])
    tied = sum(one.get("verdict") == "tied" for one in backbones)
    if tied:
        figures.append({"label": "tied with it", "value": str(tied), "detail": "cannot be told apart from the first"})
    figures += _winner_figures(ranking)
    without = f"{len(failed)} failed" if failed else "none failed"
    figures.append({"label": "backbones", "value": str(len(backbones)), "detail": f"ranked; {without}"})
    if is_measured(ranking.get("seconds")):
        budget = ranking.get("budget_seconds")
        of = f"of a budget of {duration(float(budget)).removesuffix(' 0 s')}" if budget else "in all"
        figures.append({"label": "time", "value": duration(ranking["seconds"]), "detail": of})
    note = untrained_notice(ranking) if backbones else "No backbone could be ranked; the reasons stand below."
    return Section("Result", "figures", {"figures": figures}, note)


def _first_figures(ranking: Mapping[str, Any], first: Mapping[str, Any]) -> list[dict[str, Any]]:
    stages = ", ".join((first.get("chosen") or {}).get("stages") or ())
    detail = f"stages {stages}" if stages else ""
    low, high = first.get("low"), first.get("high")
    ends = f"95 % {low:.3f} to {high:.3f}; " if is_measured(low) and is_measured(high) else ""
    score = with_interval(first.get("score"), None, None)
    figures: list[dict[str, Any]] = [
        {"label": "first", "value": backbone_label(first), "detail": detail, "wide": True},
        {"label": score_name(ranking["score"]), "value": score, "detail": f"{ends}{_meaning(ranking)}"},
    ]
    if is_measured(first.get("accuracy")):
        detail = "leave-one-out, of a linear classifier of its chosen stages"
        figures.append({"label": "accuracy", "value": f"{first['accuracy']:.3f}", "detail": detail})
    if is_measured(best := first.get("probability_best")) and len(ranking["backbones"]) > 1:
        detail = "over resampled images, of all that were ranked"
        figures.append({"label": "probability of being best", "value": f"{best:.0%}", "detail": detail})
    return figures


def _meaning(ranking: Mapping[str, Any]) -> str:
    return score_meaning(ranking, ranking["score"])


def _winner_figures(ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    race, backbones = ranking.get("race"), ranking["backbones"]
    if not race or not race.get("winner"):
        return []
    place = next((i for i, one in enumerate(backbones) if one["name"] == race["winner"]), None)
    found = {} if place is None else backbones[place].get("race") or {}
    detail = "" if place in (None, 0) else f"place {place + 1} by score" if place is not None else ""
    metric = str(race.get("metric") or "metric")
    name = str(race["winner"]) if place is None else backbone_label(backbones[place])
    detail = detail or "and first by score" * (place == 0)
    figures: list[dict[str, Any]] = [{"label": "winner of the race", "value": name, "detail": detail, "wide": True}]
    if is_measured(found.get("test")):
        low, high = found.get("test_low"), found.get("test_high")
        ends = f"95 % {low:.3f} to {high:.3f}" if is_measured(low) and is_measured(high) else ""
        figures.append({"label": f"its test {metric}", "value": f"{found['test']:.3f}", "detail": ends})
    return figures


def ranking_sections(ranking: Mapping[str, Any]) -> list[Section]:
    """The backbones, the best first; the first and those tied with it stand out. Nothing without backbones."""
    backbones = ranking["backbones"][:MOST_ROWS]
    if not backbones:
        return []
    race, prior = (any(one.get(key) for one in backbones) for key in ("race", "prior"))
    metric = str((ranking.get("race") or {}).get("metric") or "metric")
    hints = {
        "accuracy": "leave-one-out, of a linear classifier of the chosen stages",
        "P(best)": "how often it was the best over resampled images",
        "prior top-1": "published ImageNet accuracy, %",
        "to the first": "difference on the same resampled images",
        "race val": f"validation {metric} after its last rung",
        "race test": f"test {metric} after its last rung",
    }
    titles = [*(["prior top-1"] if prior else []), *(["race val", "race test"] if race else [])]
    titles += ["params (M)", "GMACs", "ms an image", "seconds", "to the first"]
    columns: list[dict[str, Any]] = [{"title": "place", "number": True}, {"title": "backbone"}]
    columns += [{"title": score_name(ranking["score"]), "number": True}, _number("P(best)", hints)]
    columns += [{"title": "verdict"}, {"title": "chosen stages"}, _number("accuracy", hints)]
    columns += [_number(title, hints) for title in titles]
    rows = [_row(place, one, race, prior) for place, one in enumerate(backbones, start=1)]
    marked = [i for i, one in enumerate(backbones) if one.get("verdict") in ("first", "tied")]
    data = {"columns": columns, "rows": rows, "filter": len(rows) > 5, "marked": marked}
    note = " ".join(f"{line[:1].upper()}{line[1:].rstrip('.')}." for line in ranking_head(ranking))
    return [Section("Ranking", "table", data, note)]


def _row(place: int, one: Mapping[str, Any], race: bool, prior: bool) -> list[Any]:
    low, high, verdict = one.get("difference_low"), one.get("difference_high"), str(one.get("verdict") or "")
    behind = f"{one['difference']:+.3f}" if is_measured(one.get("difference")) else ""
    behind += f" [{low:+.3f}, {high:+.3f}]" if is_measured(low) and is_measured(high) else ""
    stages = list(map(str, (one.get("chosen") or {}).get("stages") or ()))
    raced = one.get("race") or {}
    score = {"text": with_interval(one.get("score"), one.get("low"), one.get("high")), "sort": one.get("score")}
    test = with_interval(raced.get("test"), raced.get("test_low"), raced.get("test_high"))
    measured = [scaled_cell(raced.get("val"), ".3f"), scaled_cell(raced.get("test"), ".3f", test)] if race else []
    return [
        place,
        backbone_label(one),
        score if is_measured(one.get("score")) else None,
        scaled_cell(one.get("probability_best"), ".2f"),
        {"text": verdict or "-", "sort": {"first": 0, "tied": 1}.get(verdict, 2)},
        (", " if len(stages) > 3 else ",\u00a0").join(stages) or None,
        scaled_cell(one.get("accuracy"), ".3f", _accuracy(one)),
        *([scaled_cell((one.get("prior") or {}).get("top1"), ".1f")] if prior else []),
        *measured,
        scaled_cell(one.get("params"), ".2f", factor=1e-6),
        scaled_cell(one.get("gmacs"), ".3g"),
        scaled_cell(one.get("latency_seconds"), ".3g", factor=1e3),
        scaled_cell(one.get("seconds"), ".1f"),
        scaled_cell(one.get("difference"), "", behind),
    ]


def _accuracy(one: Mapping[str, Any]) -> str:
    return with_interval(one.get("accuracy"), one.get("accuracy_low"), one.get("accuracy_high"))


def _number(title: str, hints: Mapping[str, str]) -> dict[str, Any]:
    return {"title": title, "number": True, "hint": hints.get(title, "")}


def cost_comparison(ranking: Mapping[str, Any]) -> list[Section]:
    """The score against latency and against parameters, with the Pareto front; nothing for a single backbone."""
    name, charts = score_name(ranking["score"]), []
    for key, (title, factor) in COSTS.items():
        points = [
            CostedScore(
                backbone_label(one),
                one[key] * factor,
                one["score"],
                _ends(one),
                one.get("verdict") in ("first", "tied"),
            )
            for one in ranking["backbones"]
            if is_measured(one.get(key)) and is_measured(one.get("score"))
        ]
        if len(points) > 1:
            heading = with_untrained(f"{name} against {title}", ranking)
            charts.append(cost_chart(heading, (title, name), points, "max", "other backbones", name_front=True))
    note = (
        f"{untrained_notice(ranking)} The Pareto front: no other backbone costs less and scores as well. A bar is a "
        "95 % interval; where bars overlap widely, the front is a guess."
    )
    return [Section("Costs", "chart", {"charts": charts}, note.strip())] if charts else []


def _ends(one: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = one.get("low"), one.get("high")
    return (low, high) if low is not None and high is not None and is_measured(low) and is_measured(high) else None


def failed_sections(ranking: Mapping[str, Any]) -> list[Section]:
    """The backbones that could not be ranked, and why."""
    failed = ranking.get("failed") or []
    rows = [[str(one["name"]), str(one.get("reason") or "")] for one in failed[:MOST_ROWS]]
    data = {"columns": [{"title": "backbone"}, {"title": "why"}], "rows": rows, "filter": len(rows) > 5}
    return [Section("What failed", "table", data)] if rows else []


def advice_sections(ranking: Mapping[str, Any]) -> list[Section]:
    """The recommended command, and how far to trust the advice."""
    sections = []
    if command := str(ranking.get("command") or ""):
        note = f"{untrained_notice(ranking)} This command trains the winner in full."
        sections.append(Section("What to run", "text", {"text": command}, note.strip()))
    prior = "The prior is the published ImageNet accuracy of these weights; it stands beside the score, no part of it."
    paragraph = (
        f"The order is by {_meaning(ranking)}: a probe on frozen features, not a training run. The "
        "interval and the probability of being best come from resampling these images, so they say how much the "
        "choice of images matters; they do not say how far a probe is from training in full. Backbones that are tied "
        "cannot be told apart on these images: prefer the cheaper one, or let the race decide. "
    )
    notes = list(map(str, ranking.get("notes") or ()))
    has_prior = any(one.get("prior") for one in ranking["backbones"])
    paragraphs = [paragraph + prior * has_prior] if ranking["backbones"] else []
    data = {"paragraphs": paragraphs, "items": notes}
    return [*sections, Section("How to read it", "prose", data)] if paragraphs or notes else sections
