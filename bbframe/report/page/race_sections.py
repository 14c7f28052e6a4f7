"""The race of a ranking, as sections of its page: its rungs, who entered, who was kept, and what they reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from bbframe.report.page.html_page import Section
from bbframe.report.page.run_page import PAGE
from bbframe.report.ranking_words import backbone_label, scaled_cell, untrained_notice, with_interval


def race_sections(ranking: Mapping[str, Any], folder: Path) -> list[Section]:
    """The rungs of the race, who entered and was kept, and the results of all who ran. Nothing without a race."""
    race = ranking.get("race")
    if not race:
        return []
    labels = {one["name"]: backbone_label(one) for one in ranking["backbones"]}
    rungs = [
        [
            _page_of(rung.get("folder"), folder, f"rung {number}"),
            rung.get("epochs"),
            ", ".join(labels.get(name, str(name)) for name in rung.get("entrants") or ()),
            ", ".join(labels.get(name, str(name)) for name in rung.get("kept") or ()) or "none",
        ]
        for number, rung in enumerate(race.get("rungs") or (), start=1)
    ]
    columns = [{"title": "rung"}, {"title": "epochs", "number": True}, {"title": "entered"}, {"title": "kept"}]
    note = f"{untrained_notice(ranking)} The finalists are trained; the best of each rung are trained for longer."
    sections = [Section("Race", "table", {"columns": columns, "rows": rungs}, note.strip())]
    rows: list[list[Any]] = []
    marked: list[int] = []
    for place, one in enumerate(ranking["backbones"], start=1):
        if not (found := one.get("race")):
            continue
        if one["name"] == race.get("winner"):
            marked.append(len(rows))
        test = with_interval(found.get("test"), found.get("test_low"), found.get("test_high"))
        why = {"probe": "score", "prior": "prior", "both": "score and prior"}
        chosen = why.get(str(one.get("finalist")), "-")
        name = _page_of(found.get("folder"), folder, backbone_label(one))
        measured = [scaled_cell(found.get("val"), ".4f"), scaled_cell(found.get("test"), ".4f", test)]
        rows.append(
            [
                name,
                place,
                chosen,
                found.get("rung"),
                found.get("epochs"),
                *measured,
                scaled_cell(found.get("seconds"), ".1f"),
            ]
        )
    if rows:
        metric = str(race.get("metric") or "metric")
        numbers = ["last rung", "epochs", f"validation {metric}", f"test {metric}", "seconds"]
        columns = [{"title": "backbone"}, {"title": "place by score", "number": True}, {"title": "finalist by"}]
        columns += [{"title": title, "number": True} for title in numbers]
        sections.append(Section("", "table", {"columns": columns, "rows": rows, "marked": marked}))
    if notes := list(map(str, race.get("notes") or ())):
        sections.append(Section("", "prose", {"paragraphs": [], "items": notes}))
    return sections


def _page_of(place: Any, folder: Path, text: str) -> dict[str, Any] | str:
    """A link to the page of a folder below the ranking's, if it has one; the dot keeps a name from being a scheme."""
    path = PurePosixPath(str(place or ""))
    if not place or path.is_absolute() or ".." in path.parts or not (folder / path / PAGE).is_file():
        return text
    return {"text": text, "link": f"./{quote(str(path))}/{PAGE}"}
