"""The page of a ranking: report.html in its folder, from rank.json and embedding_map.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbframe.report.page.html_page import MOST_BYTES, Section, page_text, write_page
from bbframe.report.page.map_section import embedding_sections
from bbframe.report.page.race_sections import race_sections
from bbframe.report.page.rank_sections import (
    advice_sections,
    cost_comparison,
    failed_sections,
    rank_figures,
    ranking_sections,
)
from bbframe.report.page.run_page import PAGE
from bbframe.report.page.run_sections import summary_facts
from bbframe.report.page.stage_scores import stage_sections
from bbframe.report.ranking_words import with_untrained

RANKING, MAP = "rank.json", "embedding_map.json"  # in a ranking's folder
MARGIN = 20_000  # bytes that a page has free beside its photos


def read_rank_page_data(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What rank.json and embedding_map.json hold; None in the place of a map that is not there.

    Raises ValueError in one line when the folder holds no ranking, or when a file of it is broken.
    """
    if not (folder / RANKING).is_file():
        raise ValueError(f"{folder}: not the folder of a ranking, it holds no {RANKING}; bbframe rank writes one")
    ranking = _mapping(folder / RANKING, ("backbones", "score", "data", "task"))
    _check_backbones(folder / RANKING, ranking["backbones"])
    if not (folder / MAP).is_file():
        return ranking, None
    found = _mapping(folder / MAP, ("points", "labels"))
    _check_map(folder / MAP, found)
    return ranking, found


def _mapping(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold a mapping, not {type(found).__name__}; run bbframe rank again")
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path}: has no {missing[0]!r}; run bbframe rank again")
    return found


def _check_backbones(path: Path, backbones: Any) -> None:
    if not isinstance(backbones, list):
        raise ValueError(f"{path}: 'backbones' must be a list; run bbframe rank again")
    for number, one in enumerate(backbones):
        if not isinstance(one, dict) or not {"name", "stages"} <= one.keys() or not isinstance(one["stages"], list):
            raise ValueError(f"{path}: backbones[{number}] has no name or no stages; run bbframe rank again")
        for stage in one["stages"]:
            if not isinstance(stage, dict) or not {"name", "index", "scores"} <= stage.keys():
                raise ValueError(
                    f"{path}: a stage of backbones[{number}] has no name, index or scores; run bbframe rank again"
                )


def _check_map(path: Path, found: Mapping[str, Any]) -> None:
    count = len(found["labels"]) if isinstance(found["labels"], list) else -1
    for key in ("points", "umap"):
        points = found.get(key)
        if points and (not isinstance(points, list) or len(points) != count or any(len(pair) != 2 for pair in points)):
            raise ValueError(f"{path}: {key!r} must hold a pair of numbers a label; run bbframe rank again")


def write_rank_page(
    folder: Path,
    ranking: Mapping[str, Any],
    embedding_map: Mapping[str, Any] | None,
    audit: Sequence[Section] = (),
) -> Path:
    """Write report.html into a ranking's folder, and return its path.

    `ranking` and `embedding_map` are the data of rank.json and embedding_map.json; `audit` are sections about the
    images, which stand before the doubts. Photos of the map that have no room are left out. Raises ValueError when
    the page would be too large without any.
    """
    title = with_untrained(f"Backbones for {ranking['data']}", ranking)
    images = f"{int(ranking.get('images') or 0):,} {ranking.get('part') or ''} images"
    words = [f"a ranking for {ranking['task']}", images, f"seed {ranking.get('seed', 0)}", folder.name]
    subtitle = " \u00b7 ".join(" ".join(str(word).split()) for word in words)
    without = None if embedding_map is None else {**embedding_map, "thumbnails": []}
    audit = [*image_facts(ranking), *audit]
    sections = rank_page_sections(folder, ranking, without, audit)
    if embedding_map and embedding_map.get("thumbnails"):
        room = MOST_BYTES - MARGIN - len(page_text(title, sections, subtitle).encode(errors="backslashreplace"))
        photos = {**embedding_map, "thumbnails": _fitting(embedding_map["thumbnails"], room)}
        sections = rank_page_sections(folder, ranking, photos, audit)
    write_page(folder / PAGE, title, sections, subtitle)
    return folder / PAGE


def image_facts(ranking: Mapping[str, Any]) -> list[Section]:
    """What the images say before anything is trained: imbalance, copies, leaks, sizes of boxes."""
    facts = summary_facts(ranking.get("data_summary") or {})
    note = "bbframe data looks closer: near copies, likely wrong labels, outliers."
    return [Section("Images", "facts", {"facts": facts}, note)] if facts else []


def _fitting(thumbnails: Sequence[Any], room: int) -> list[Any]:
    """The first thumbnails that have room for their bytes in JSON."""
    kept = []
    for uri in thumbnails:
        room -= len(str(uri)) + 3
        if room < 0:
            break
        kept.append(uri)
    return kept


def rank_page_sections(
    folder: Path,
    ranking: Mapping[str, Any],
    embedding_map: Mapping[str, Any] | None,
    audit: Sequence[Section],
) -> list[Section]:
    """All sections of the page, in their order."""
    return [
        rank_figures(ranking),
        *ranking_sections(ranking),
        *stage_sections(ranking),
        *cost_comparison(ranking),
        *race_sections(ranking, folder),
        *embedding_sections(ranking, embedding_map),
        *audit,
        *failed_sections(ranking),
        *advice_sections(ranking),
    ]
