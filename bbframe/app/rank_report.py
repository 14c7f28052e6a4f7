"""The files of a ranking besides rank.json: the table, the pictures, the map of the images, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.files import write_text

if TYPE_CHECKING:
    from bbframe.data.data_module import DataModule
    from bbframe.rank.backbone_ranking import CommonRows
    from bbframe.rank.gathering import Gathered

MAP = "embedding_map.json"


def write_rank_files(folder: Path, result: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write rank.md, the pictures, the map that `image_map` found and report.html into a ranking's folder."""
    from bbframe.report.page.rank_page import write_rank_page
    from bbframe.report.ranking_pictures import score_against_latency, score_by_stage
    from bbframe.report.ranking_table import ranking_markdown

    write_text(folder / "rank.md", ranking_markdown(result))
    score_by_stage(result, folder / "score_by_stage.png")
    score_against_latency(result, folder / "score_against_latency.png")
    write_text(folder / MAP, json.dumps(found))
    write_rank_page(folder, result, found)


def image_map(result: Mapping[str, Any], data: DataModule, first: Gathered, rows: CommonRows) -> dict[str, Any]:
    """Where the images lie by the best backbone's best stage."""
    from bbframe.report.embedding_map import embedding_map

    row = result["backbones"][0]
    stage = row["best_stage"]
    features = first.features.array(stage)
    part = result["part"]
    names = [data.source(part, int(index)) for index in rows.images]
    found = embedding_map(
        features, rows.labels, names, lambda place: thumbnail(data, part, rows, place), seed=result["seed"]
    )
    return {"backbone": row["name"], "stage": stage, **found}


def thumbnail(data: DataModule, part: str, rows: CommonRows, place: int) -> Any:
    """The image of a row as PIL gives it; in detection, what lies inside of the row's box."""
    image = data.parts[part].read(int(rows.images[place]))
    if rows.boxes is None:
        return image
    left, top, right, bottom = rows.boxes[place].tolist()
    return image.crop((int(left), int(top), max(int(left) + 1, round(right)), max(int(top) + 1, round(bottom))))
