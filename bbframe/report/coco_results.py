"""Detections in the format of COCO's results, which its evaluation tools read (https://cocodataset.org/#format-results).

A row has `image_id`, `category_id`, `bbox` (left, top, width, height in pixels), `score`, and for a mask
`segmentation`, run lengths over the columns, packed as COCO packs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def result_rows(
    image_id: int | str,
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    masks: Sequence[dict[str, Any]] | None,
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """The rows of one image from its boxes (N, 4), corners in pixels, and whatever else (N, ...) belongs to them.

    `labels` are indices into `category_ids`; `masks` are run lengths.
    """
    rows = []
    for (left, top, right, bottom), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
        sides = [round(value, 2) for value in (left, top, right - left, bottom - top)]
        rows.append(
            {"image_id": image_id, "category_id": category_ids[label], "bbox": sides, "score": round(score, 5)}
        )
    if masks is not None:
        for row, mask in zip(rows, masks, strict=True):
            row["segmentation"] = mask
    return rows
