"""Detections in the format of COCO's results, which its evaluation tools read (https://cocodataset.org/#format-results)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from torch import Tensor


class CocoResult(TypedDict, total=False):
    """A detection; `bbox` is [left, top, width, height] in pixels.

    A mask has `segmentation`, its run lengths column by column, packed as COCO packs them.
    """

    image_id: int | str
    category_id: int
    bbox: list[float]
    score: float
    segmentation: dict[str, Any]


def coco_results(
    image_id: int | str,
    boxes: Tensor | np.ndarray,
    scores: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    masks: Sequence[dict[str, Any]] | None,
    category_ids: Sequence[int],
) -> list[CocoResult]:
    """The results of one image from its boxes (N, 4), corners in pixels, and their scores and labels (N,).

    `labels` are indices into `category_ids`; `masks` are run lengths.
    """
    rows: list[CocoResult] = []
    for (left, top, right, bottom), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
        sides = [round(value, 2) for value in (left, top, right - left, bottom - top)]
        rows.append(
            {"image_id": image_id, "category_id": category_ids[label], "bbox": sides, "score": round(score, 5)}
        )
    for row, mask in zip(rows, masks or (), strict=masks is not None):
        row["segmentation"] = mask
    return rows
