"""FCOS and RetinaNet as graphs of fixed shape: the levels of a pyramid -> the detections of every image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bbframe.export.box_suppression import NO_BOX, best_boxes, best_scores, pick
from bbframe.heads.anchors import Anchors
from bbframe.heads.one_stage import FCOSDetector, OneStageDetector


class FoundBoxes(NamedTuple):
    """Boxes (B, D, 4), scores (B, D) and labels (B, D) int64, best first; a score below 0 means that there is none."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates:
    """Values of the best anchors of one level, `places` (B, N) in what a convolution says of them all.

    The convolution's `x` is (B, A * size, H, W), and a place counts through it as it lies in memory. Nothing is
    permuted, because a program of any height and width may not ask whether a permuted map is contiguous.
    """

    def __init__(self, places: Tensor, x: Tensor, size: int):
        height, self.width = (torch.full_like(places[0, 0], side) for side in x.shape[-2:])
        self.cells = height * self.width
        channels, self.cell = places // self.cells, places % self.cells
        self.anchor, self.label = channels // size, channels % size

    def values(self, x: Tensor, size: int) -> Tensor:
        """The `size` numbers that a convolution (B, A * size, H, W) says of each anchor, (B, N, size)."""
        channels = self.anchor[..., None] * size + torch.arange(size, device=x.device)
        places = channels * self.cells + self.cell[..., None]
        return x.flatten(1).gather(1, places.flatten(1)).view_as(places)

    def boxes(self, anchors: Anchors, level: int) -> Tensor:
        """The anchors themselves, (B, N, 4)."""
        x, y = self.cell % self.width, self.cell // self.width
        corners = torch.stack([x, y, x, y], dim=2) * anchors.strides[level]
        return corners + anchors.cell_anchors[level].to(corners.device)[self.anchor]


def clipped(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes (..., 4) inside images (B, C, H, W)."""
    ends = [torch.full((), side, dtype=boxes.dtype, device=boxes.device) for side in (image.shape[3], image.shape[2])]
    return torch.minimum(boxes.clamp(min=0), torch.stack(ends * 2))


def decoded(decode: Callable[[Tensor, Tensor], Tensor], codes: Tensor, boxes: Tensor) -> Tensor:
    """torchvision's decoding of codes (B, N, 4) of boxes (B, N, 4), which takes no batches."""
    return decode(codes.reshape(-1, 4), boxes.reshape(-1, 4)).reshape(codes.shape)


class OneStageGraph(nn.Module):
    """`OneStageDetector.run` in evaluation, for images (B, C, H, W) that are all of one size."""

    masks = False

    def __init__(self, detector: OneStageDetector):
        super().__init__()
        self.model = detector.model
        self.fcos, coder = isinstance(detector, FCOSDetector), detector.model.box_coder
        self.decode = coder.decode if self.fcos else coder.decode_single

    def forward(self, levels: list[Tensor], image: Tensor) -> tuple[FoundBoxes, None]:
        columns = [self.candidates(i, x, image) for i, x in enumerate(levels)]
        boxes, scores, labels = (torch.cat(column, dim=1) for column in zip(*columns, strict=True))
        scores, chosen = best_boxes(boxes, scores, labels, self.model.nms_thresh, self.model.detections_per_img)
        return FoundBoxes(pick(boxes, chosen), scores, labels.gather(1, chosen)), None

    def candidates(self, level: int, x: Tensor, image: Tensor) -> FoundBoxes:
        """The best candidates of a level, `topk_candidates` for each image."""
        classes, sides = self.model.head.classification_head, self.model.head.regression_head
        logits, towards_sides = classes.cls_logits(classes.conv(x)), sides.conv(x)
        codes, shares = sides.bbox_reg(towards_sides), logits.sigmoid()
        if self.fcos:  # one anchor a place
            shares, codes = (shares * sides.bbox_ctrness(towards_sides).sigmoid()).sqrt(), codes.relu()
        shares = torch.where(shares > self.model.score_thresh, shares, NO_BOX).flatten(1)
        scores, places = best_scores(shares, self.model.topk_candidates)
        chosen = Candidates(places, logits, classes.num_classes)
        anchors = chosen.boxes(self.model.anchor_generator, level)
        boxes = decoded(self.decode, chosen.values(codes, 4), anchors)
        return FoundBoxes(clipped(boxes, image), scores, chosen.label)
