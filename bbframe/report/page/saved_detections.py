"""The tested images of a detection run that has ended, from its predictions.json and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.tasks.detection import DetectedImage, true_objects
from bbframe.tasks.detection_matches import FoundObjects


def read_detections(file: Path, data: DetectionDataModule) -> list[DetectedImage]:
    """The tested images of a run that has ended, from its predictions.json and its data.

    Raises ValueError when the file cannot be read, or names an image or a class that the data lack.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    part = data.test_part
    count = data.counts[part]
    places = {data.image_id(part, index): index for index in range(count)}
    labels = {number: label for label, number in enumerate(data.part_category_ids(part))}
    rows: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for row in found:
        if row["image_id"] not in places or row["category_id"] not in labels:
            raise ValueError(
                f"{file}: image {row['image_id']!r} or category {row['category_id']!r} is none of the {part} images' "
                "that data=... gives; the data must be those of the run"
            )
        rows[places[row["image_id"]]].append(row)
    return [
        DetectedImage(index, _found(rows[index], labels), true_objects(data.parts[part].target(index, data.masks)))
        for index in range(count)
    ]


def _found(rows: Sequence[Mapping[str, Any]], labels: Mapping[int, int]) -> FoundObjects:
    sides = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    return FoundObjects(
        boxes=np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]]),
        scores=np.array([row["score"] for row in rows], float),
        labels=np.array([labels[row["category_id"]] for row in rows], int),
        masks=[row["segmentation"] for row in rows] if rows and "segmentation" in rows[0] else None,
    )
