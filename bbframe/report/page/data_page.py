"""The page of an audit of a data set: what was found, with the pictures beside it, from plain data alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbframe.report.page.html_page import Section, write_page
from bbframe.report.page.run_sections import listed, summary_facts

MOST_SHOWN = 96  # pictures, or pairs, of a kind
AT_ONCE = 24  # of them; the others are folded up
MOST_ROWS = 2000  # of the table of classes
SECTIONS = {
    "leak": ("Leaks between parts", "The same image in two parts. The copy that is left out is the first of a pair."),
    "near leak": ("Near leaks", "Nearly the same image in two parts. Look before one of them is left out."),
    "exact copy": ("Exact copies", "The same image twice in a part. All but one are left out."),
    "two classes": ("One image, two classes", "Equal images with different classes. The class of one is wrong."),
    "near copy": ("Near copies", "Nearly the same image twice in a part."),
    "wrong label": (
        "Likely wrong labels",
        "Images whose nearest neighbours say another class, the most doubtful first. In the file of fixes, write "
        "relabel, exclude or keep in the column action.",
    ),
    "outlier": ("Outliers", "Images that are far from all others of their class, the farthest first."),
    "small object": ("Objects too small", "Objects below the stride of the network's finest map, the smallest first."),
}

Photo = tuple[str, tuple[int, int]] | str  # a data URI and (width, height), or why there is none


def shown_numbers(audit: Mapping[str, Any]) -> list[int]:
    """The numbers of the images whose photos `write_data_page` shows, the most important first, each once."""
    numbers: list[int] = []
    for problem in SECTIONS:
        for finding in [one for one in audit["findings"] if one["problem"] == problem][:MOST_SHOWN]:
            numbers += [n for n in (finding["number"], finding["twin"]) if n is not None]
    return list(dict.fromkeys(numbers))


def write_data_page(path: Path, name: str, audit: Mapping[str, Any], photos: Mapping[int, Photo]) -> None:
    """Write the page. `audit` is what audit.json holds; `photos` are those of `shown_numbers`, as far as there are.

    Raises ValueError when the page would be too large.
    """
    sections = [
        _found_section(audit),
        *_command_sections(audit),
        *(section for problem in SECTIONS for section in _problem_sections(problem, audit, photos)),
        *_unreadable_sections(audit),
        *_class_sections(audit),
        *_histogram_sections(audit),
    ]
    write_page(path, f"The data of {name}", sections, f"compared by {audit['features']}")


def _found_section(audit: Mapping[str, Any]) -> Section:
    counts = audit["summary"]["images"]
    parts = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    figures = [{"label": "images", "value": f"{sum(counts.values()):,}", "detail": parts}]
    figures.append({"label": "classes", "value": f"{audit['summary']['classes']:,}", "detail": ""})
    if audit["confirmed_labels"] is not None:
        share = f"{100 * audit['confirmed_labels']:.1f} %"
        figures.append({"label": "labels confirmed", "value": share, "detail": "by their nearest neighbours"})
    for problem, count in audit["problems"].items():
        figures.append({"label": problem, "value": f"{count:,}", "detail": ""})
    notes = [] if audit["problems"] else ["Nothing was found that would spoil a comparison."]
    return Section("What was found", "figures", {"figures": figures}, " ".join([*notes, *audit["notes"]]))


def _command_sections(audit: Mapping[str, Any]) -> list[Section]:
    if not audit["problems"] or not audit.get("command"):
        return []
    excluded = sum(finding["action"] == "exclude" for finding in audit["findings"])
    text = f"{audit['command']}\npython train.py {audit['arguments']} data.exclude={audit['fixes']}"
    note = f"The first command lists what to do, {excluded:,} images to exclude among it; the second one honours it."
    return [Section("", "text", {"text": text}, note)]


def _problem_sections(problem: str, audit: Mapping[str, Any], photos: Mapping[int, Photo]) -> list[Section]:
    found = [finding for finding in audit["findings"] if finding["problem"] == problem]
    if not found:
        return []
    heading, note = SECTIONS[problem]
    shown = [_picture(finding, photos) for finding in found[:MOST_SHOWN]]
    if len(found) > len(shown):
        note += f" The first {len(shown)} of {len(found):,}."
    return [Section(heading, "findings", {"found": shown, "at_once": AT_ONCE}, note)]


def _picture(finding: Mapping[str, Any], photos: Mapping[int, Photo]) -> dict[str, Any]:
    """What the template shows of a finding: its photos with captions, and a line below."""
    own = [finding["part"], finding["image"]]
    pictures = [_photo(photos.get(finding["number"]), " \u00b7 ".join(own))]
    if finding["twin"] is not None:
        pictures.append(_photo(photos.get(finding["twin"]), finding["other"].replace(": ", " \u00b7 ", 1)))
    score = f"{finding['score']:.3f}"
    if finding["suggestion"]:
        answer, truth = f"looks like {finding['suggestion']}", f"is called {finding['label']}"
    else:
        answer, truth = finding["label"], finding["detail"]
    return {"photos": pictures, "answer": answer, "truth": truth, "score": score, "action": finding["action"]}


def _photo(photo: Photo | None, caption: str) -> dict[str, Any]:
    if photo is None or isinstance(photo, str):
        return {"source": None, "why": photo or "no room for the photo", "caption": caption}
    return {"source": photo[0], "tiny": max(photo[1]) <= 48, "caption": caption}


def _unreadable_sections(audit: Mapping[str, Any]) -> list[Section]:
    rows = [[f["part"], f["image"], f["detail"]] for f in audit["findings"] if f["problem"] == "unreadable"]
    if not rows:
        return []
    table = listed("Images that cannot be read", ("part", "image", "why"), rows)
    note = "These files are broken or no images; they are left out by data.exclude."
    return [Section("Unreadable", table.template, table.data, note)]


def _class_sections(audit: Mapping[str, Any]) -> list[Section]:
    """How many images, or objects, each class has in each part, the rarest first, and the facts of the summary."""
    per_class: Mapping[str, Sequence[int]] = audit["per_class"]
    parts = list(per_class)
    rows = [[name, *(per_class[part][label] for part in parts)] for label, name in enumerate(audit["class_names"])]
    rows.sort(key=lambda row: sum(row[1:]))
    columns = [{"title": "class"}, *({"title": f"{part} {audit['noun']}", "number": True} for part in parts)]
    table = {"columns": columns, "rows": rows[:MOST_ROWS], "filter": len(rows) > 12}
    return [
        Section("Classes", "table", table, "The rarest first."),
        Section("", "facts", {"facts": summary_facts(audit["summary"])}),
    ]


def _histogram_sections(audit: Mapping[str, Any]) -> list[Section]:
    charts = [
        {
            "title": chart["title"],
            "kind": "bar",
            "x": {"title": chart["axis"], "names": [name for name, _ in chart["bars"]]},
            "y": {"title": "how many", "whole": True},
            "series": [{"name": "how many", "points": chart["bars"]}],
        }
        for chart in audit["histograms"]
    ]
    return [Section("Sizes", "chart", {"charts": charts})] if charts else []
