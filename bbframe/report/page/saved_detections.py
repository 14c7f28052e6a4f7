"""The tested images of a detection run that has ended, from its predictions.json and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.report.page.finished_run import FinishedRun
from bbframe.tasks.detection import true_objects
from bbframe.tasks.detection_matches import FoundObjects
from bbframe.tasks.precision_metric import DetectedImage


def read_results(file: Path) -> list[dict[str, Any]]:
    """The detections in a file of COCO results. Raises ValueError when it holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) and row.keys() >= KEYS for row in found):
        raise ValueError(f"{file}: must hold a list of detections, each with {', '.join(sorted(KEYS))}")
    return found


KEYS = {"image_id", "category_id", "bbox", "score"}


def find_tested_images(run: FinishedRun, data: DetectionDataModule) -> range | None:
    """The indices of the images that the run has tested, None when the data are not those that it has tested."""
    part = str(run.metrics.get("test_part") or data.test_part)
    indices = range(int(run.metrics.get("test_images") or data.counts.get(part, 0)))
    if part != data.test_part or len(indices) > data.counts[part]:
        return None
    tested = run.metrics.get("test_sha256")
    return indices if not tested or data.fingerprint(part, indices) == tested else None


def read_detections(run: FinishedRun, data: DetectionDataModule, indices: Sequence[int]) -> list[DetectedImage]:
    """What the run found in the tested images of these indices, and what is in them.

    Boxes are rounded to hundredths of a pixel and scores to five decimals, as predictions.json has them. Raises
    ValueError for an image or a class that the data do not have.
    """
    file, part = run.folder / "predictions.json", data.test_part
    places = {data.image_id(part, index): index for index in indices}
    labels = {number: label for label, number in enumerate(data.part_category_ids(part))}
    rows: dict[int, list[dict[str, Any]]] = {index: [] for index in indices}
    for row in read_results(file):
        for key, known in (("image_id", places), ("category_id", labels)):
            if row[key] not in known:
                raise ValueError(f"{file}: {key}={row[key]!r} is none of the {part} data; give the data of the run")
        rows[places[row["image_id"]]].append(row)
    return [
        DetectedImage(index, _found(rows[index], labels), true_objects(data.parts[part].target(index, data.masks)))
        for index in indices
    ]


def _found(rows: Sequence[Mapping[str, Any]], labels: Mapping[int, int]) -> FoundObjects:
    sides = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    return FoundObjects(
        boxes=np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]]),
        scores=np.array([row["score"] for row in rows], float),
        labels=np.array([labels[row["category_id"]] for row in rows], int),
        masks=[row["segmentation"] for row in rows] if rows and "segmentation" in rows[0] else None,
    )
