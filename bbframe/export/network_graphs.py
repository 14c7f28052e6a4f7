"""Trained networks as graphs: plain modules of tensors in and tensors out, made from a task."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.export.one_stage_graph import OneStageGraph
from bbframe.export.two_stage_graph import TwoStageGraph
from bbframe.fast.converter import plain
from bbframe.heads.one_stage import OneStageDetector
from bbframe.heads.two_stage import FasterRCNNDetector
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.task import Task


class ClassifierGraph(nn.Module):
    """Normalised images (B, C, H, W) -> the probabilities of the classes (B, K) and the energy (B,).

    The scores are divided by the `temperature` before the softmax. The energy, -log(sum(exp(scores))), is high for what
    is unlike the training images (Liu et al., arXiv:2010.03759).
    """

    outputs = ("probabilities", "energy")

    def __init__(self, task: Classification, temperature: float | None):
        super().__init__()
        self.backbone, self.head, self.temperature = task.backbone, task.head, temperature or 1.0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.backbone(images).feature_maps)
        return (scores / self.temperature).softmax(dim=1), -scores.logsumexp(dim=1)


class DetectorGraph(nn.Module):
    """Normalised images (B, C, H, W) -> boxes (B, D, 4), scores (B, D), labels (B, D), count (B,) and, if any, masks.

    Boxes are x1 y1 x2 y2 in the pixels of the images given, best first; D is the head's `detections_per_image`, and
    count says how many of them there are. The rest have a score of 0, a label of -1 and a box of zeros. Masks
    (B, D, 28, 28) hold the probability of each part of a box.
    """

    def __init__(self, task: Detection):
        super().__init__()
        self.backbone, self.pyramid, self.extra = task.backbone, task.head.pyramid, task.head.extra
        self.multiple = task.head.multiple
        two_stages = isinstance(task.head, FasterRCNNDetector)
        self.detect = (TwoStageGraph if two_stages else OneStageGraph)(task.head)
        self.outputs = ("boxes", "scores", "labels", "count", *(("masks",) if self.detect.masks else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        more_down, more_right = ((side + self.multiple - 1) // self.multiple * self.multiple - side for side in images.shape[-2:])
        x = F.pad(images, (0, more_right, 0, more_down))
        found, masks = self.detect(self.extra(self.pyramid(self.backbone(x).feature_maps)), images)
        there = found.scores >= 0
        boxes = torch.where(there[..., None], found.boxes, 0.0)
        scores, labels = torch.where(there, found.scores, 0.0), torch.where(there, found.labels, -1)
        more = () if masks is None else (torch.where(there[..., None, None], masks, 0.0),)
        return boxes, scores, labels, there.sum(dim=1), *more
