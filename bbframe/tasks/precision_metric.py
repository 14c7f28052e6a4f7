"""COCO's average precision of tested images, each a row of arrays and run lengths that moves between processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_convert

from bbframe.tasks.detection_matches import FoundObjects, TrueObjects
from bbframe.tasks.mask_rle import RLE


class DetectedImage(NamedTuple):
    """One evaluated image: its index, what was found in it and what is in it, in its original pixels."""

    image: int
    found: FoundObjects
    truth: TrueObjects


class RowPrecision(MeanAveragePrecision):
    """torchmetrics' mean average precision, which takes rows, and masks as run lengths rather than pixels.

    Its states are the lists that torchmetrics fills from tensors: boxes as x, y, width and height, masks as
    ((height, width), counts).
    """

    def update(self, rows: Iterable[DetectedImage]) -> None:  # type: ignore[override]
        """Count the images."""
        for _, found, truth in rows:
            self.detection_box.append(_corners(found.boxes))
            self.detection_scores.append(torch.from_numpy(found.scores))
            self.detection_labels.append(torch.from_numpy(found.labels))
            self.groundtruth_box.append(_corners(truth.boxes))
            self.groundtruth_labels.append(torch.from_numpy(truth.labels))
            self.groundtruth_crowds.append(torch.from_numpy(truth.crowd).long())
            self.groundtruth_area.append(torch.from_numpy(truth.area))
            if "segm" in self.iou_type:
                self.detection_mask.append(_packed(found.masks))  # type: ignore[arg-type]
                self.groundtruth_mask.append(_packed(truth.masks))  # type: ignore[arg-type]


def _corners(boxes: object) -> Tensor:
    tensor = torch.as_tensor(boxes)
    return box_convert(tensor, "xyxy", "xywh") if len(tensor) else tensor


def _packed(masks: list[RLE] | None) -> tuple[tuple[tuple[int, ...], bytes], ...]:
    assert masks is not None
    return tuple((tuple(mask["size"]), mask["counts"].encode()) for mask in masks)
