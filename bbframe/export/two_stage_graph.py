"""Faster and Mask R-CNN as graphs of fixed shape: the levels of a pyramid -> the detections of every image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from bbframe.export.box_suppression import NO_BOX, best_boxes, best_scores, pick
from bbframe.export.one_stage_graph import Candidates, FoundBoxes, clipped, decoded
from bbframe.heads.two_stage import FasterRCNNDetector

SMALLEST = 1e-2  # pixels; torchvision leaves out smaller boxes


class TwoStageGraph(nn.Module):
    """`FasterRCNNDetector.run` in evaluation, for images (B, C, H, W) that are all of one size."""

    def __init__(self, detector: FasterRCNNDetector):
        super().__init__()
        self.rpn, self.roi_heads = detector.model.rpn, detector.model.roi_heads
        self.masks = self.roi_heads.has_mask()

    def forward(self, levels: list[Tensor], image: Tensor) -> tuple[FoundBoxes, Tensor | None]:
        """The detections and, with masks, the probability of each part of a box, (B, D, 28, 28)."""
        found = self.detections(levels, self.proposals(levels, image), image)
        return found, self.masks_of(levels, found) if self.masks else None

    def proposals(self, levels: list[Tensor], image: Tensor) -> Tensor:
        """The regions to look at, (B, P, 4); where there are fewer than P, the rest are empty boxes at 0."""
        rpn = self.rpn
        columns = []
        for i, (objectness, codes) in enumerate(zip(*rpn.head(levels), strict=True)):
            logits, places = best_scores(objectness.flatten(1), rpn.pre_nms_top_n(), -math.inf)
            found = Candidates(places, objectness, 1)
            anchors = found.boxes(rpn.anchor_generator, i)
            boxes = clipped(decoded(rpn.box_coder.decode_single, found.values(codes, 4), anchors), image)
            scores = logits.sigmoid()
            counts = (logits > -math.inf) & large(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
            scores = torch.where(counts, scores, NO_BOX)
            columns.append((boxes, scores, torch.full_like(places, i)))
        boxes, scores, groups = (torch.cat(column, dim=1) for column in zip(*columns, strict=True))
        scores, chosen = best_boxes(boxes, scores, groups, rpn.nms_thresh, rpn.post_nms_top_n())
        return torch.where(scores[..., None] >= 0, pick(boxes, chosen), -1.0)

    def detections(self, levels: list[Tensor], proposals: Tensor, image: Tensor) -> FoundBoxes:
        """The boxes of the classes in these regions."""
        heads = self.roi_heads
        logits, codes = heads.box_predictor(heads.box_head(self.pooled(heads.box_roi_pool, levels, proposals)))
        num_classes, regions = logits.shape[-1] - 1, proposals.shape[1]
        shares = logits.softmax(-1)[:, 1:].reshape(-1, regions * num_classes)
        boxes = heads.box_coder.decode_single(codes, proposals.reshape(-1, 4)).unflatten(1, (-1, 4))[:, 1:]
        boxes = clipped(boxes.reshape(-1, regions * num_classes, 4), image)
        there = (proposals[..., 2] >= 0).repeat_interleave(num_classes, dim=1)
        counts = there & large(boxes, SMALLEST) & (shares > heads.score_thresh)
        labels = torch.arange(num_classes, device=boxes.device).repeat(regions).expand_as(shares)
        scores = torch.where(counts, shares, NO_BOX)
        scores, chosen = best_boxes(boxes, scores, labels, heads.nms_thresh, heads.detections_per_img)
        return FoundBoxes(pick(boxes, chosen), scores, labels.gather(1, chosen))

    def masks_of(self, levels: list[Tensor], found: FoundBoxes) -> Tensor:
        """The masks of detections, (B, D, 28, 28): of all classes' masks the one of the label."""
        heads = self.roi_heads
        logits = heads.mask_predictor(heads.mask_head(self.pooled(heads.mask_roi_pool, levels, found.boxes)))
        chosen = (found.labels.flatten() + 1)[:, None, None, None].expand(-1, 1, *logits.shape[-2:])
        return logits.gather(1, chosen).sigmoid().reshape(*found.labels.shape, *logits.shape[-2:])

    @staticmethod
    def pooled(pool: MultiScaleRoIAlign, levels: list[Tensor], boxes: Tensor) -> Tensor:
        """Regions (B, P, 4) pooled from their image's levels, each from the one of its size: (B * P, C, S, S)."""
        images = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None].expand(-1, boxes.shape[1], 1)
        rois = torch.cat([images.to(boxes.dtype), boxes], dim=2).flatten(0, 1)
        at = pool.map_levels([rois[:, 1:]])
        size, samples = pool.output_size, pool.sampling_ratio
        if len(pool.scales) == 1:
            return roi_align(levels[0], rois, size, pool.scales[0], samples)
        result = levels[0].new_zeros(rois.shape[0], levels[0].shape[1], *size)
        for i, scale in enumerate(pool.scales):
            chosen = (at == i).nonzero()[:, 0]
            result = result.index_copy(0, chosen, roi_align(levels[i], rois[chosen], size, scale, samples))
        return result


def large(boxes: Tensor, side: float) -> Tensor:
    """Whether both sides of boxes (..., 4) have at least `side` pixels: (...)."""
    return (boxes[..., 2] - boxes[..., 0] >= side) & (boxes[..., 3] - boxes[..., 1] >= side)
