"""Trained networks as graphs: plain modules of tensors in and tensors out, made from a loaded network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.export.one_stage_graph import OneStageGraph
from bbframe.export.pixel_graph import RESIZED, FittedPixels, PixelGraph, ScaledPixels
from bbframe.export.two_stage_graph import TwoStageGraph
from bbframe.fast.converter import plain
from bbframe.heads.one_stage import OneStageDetector
from bbframe.heads.two_stage import FasterRCNNDetector
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.preprocessing import BoxPreprocessing, Preprocessing
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.familiarity import Familiarity


class ClassifierGraph(nn.Module):
    """Normalised images (B, C, H, W) -> the calibrated probabilities of the classes (B, K) and the distance (B,).

    The distance says how far an image is from those of the training, as `Familiarity` does; a network that has not
    learned it gives probabilities alone.
    """

    def __init__(self, task: Classification, temperature: float | None, familiarity: Familiarity | None):
        super().__init__()
        self.backbone, self.head, self.familiarity = task.backbone, task.head, familiarity
        self.temperature = temperature or 1.0
        self.outputs = ("probabilities",) if familiarity is None else ("probabilities", "distance")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images).feature_maps
        shares = (self.head(maps) / self.temperature).softmax(dim=1)
        return (shares,) if self.familiarity is None else (shares, self.familiarity(maps[-1].mean((2, 3))))


class DetectorGraph(nn.Module):
    """Normalised images (B, C, H, W) -> boxes (B, D, 4), scores (B, D), labels (B, D), count (B,) and, if any, masks.

    Boxes are x1 y1 x2 y2 in the pixels of the images given, best first; D is the head's `detections_per_image`, and
    count says how many of them there are. The rest have a score of 0, a label of -1 and a box of zeros. Masks
    (B, D, 28, 28) hold the probability of each part of a box.
    """

    pyramid: Any
    extra: Any
    detect: Any

    def __init__(self, task: Detection):
        super().__init__()
        self.backbone, self.pyramid, self.extra = task.backbone, task.head.pyramid, task.head.extra
        self.multiple = task.head.multiple
        head: Any = task.head
        self.detect = (TwoStageGraph if isinstance(head, FasterRCNNDetector) else OneStageGraph)(head)
        self.outputs = ("boxes", "scores", "labels", "count", *(("masks",) if self.detect.masks else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        multiple = self.multiple
        more_down, more_right = ((side + multiple - 1) // multiple * multiple - side for side in images.shape[-2:])
        x = F.pad(images, (0, more_right, 0, more_down))
        found, masks = self.detect(self.extra(self.pyramid(self.backbone(x).feature_maps)), images)
        there = found.scores >= 0
        boxes = torch.where(there[..., None], found.boxes, 0.0)
        scores, labels = torch.where(there, found.scores, 0.0), torch.where(there, found.labels, -1)
        more = () if masks is None else (torch.where(there[..., None, None], masks, 0.0),)
        return boxes, scores, labels, there.sum(dim=1), *more


class PixelsFirst(nn.Module):
    """A graph that begins with images of bytes (B, 3, H, W), red green blue; boxes are in the pixels of these."""

    def __init__(self, pixels: PixelGraph, network: Any):
        super().__init__()
        self.pixels, self.network, self.outputs = pixels, network, network.outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        prepared = self.pixels(images)
        if not isinstance(self.pixels, ScaledPixels):
            return self.network(prepared)
        prepared, scale = prepared
        boxes, *rest = self.network(prepared)
        return boxes / scale.repeat(2), *rest


def network_graph(network: TrainedNetwork, inside: bool) -> Any:
    """The graph of a network, on the CPU and apart from it, with its preprocessing `inside` or not.

    It has `outputs`, their names. Raises ValueError for a task or a head that has no graph, and for a preprocessing
    that has none.
    """
    task = network.task
    graph: Any
    if isinstance(task, Classification):
        graph = ClassifierGraph(task, network.calibration.temperature, network.familiarity)
    elif isinstance(task, Detection) and isinstance(task.head, (OneStageDetector, FasterRCNNDetector)):
        graph = DetectorGraph(task)
    else:
        raise ValueError(
            f"export: a {type(task.head).__name__} cannot be exported; classifiers can, and the detectors fcos, "
            "retinanet, faster_rcnn and mask_rcnn"
        )
    graph = plain(copy.deepcopy(graph)).float().cpu().eval().requires_grad_(False)
    for module in graph.modules():  # what watches a loaded network is no part of it
        if module is graph.backbone:
            module._forward_hooks.clear()
    return PixelsFirst(pixel_graph(network.preprocessing), graph).eval() if inside else graph


def pixel_graph(preprocessing: Preprocessing) -> PixelGraph:
    """What a preprocessing does, as a graph. Raises ValueError where it has none."""
    if preprocessing.interpolation not in RESIZED:
        raise ValueError(
            f"export: preprocessing=true cannot compute interpolation={preprocessing.interpolation} as PIL does; "
            "leave it out, and prepare images with the network's preprocessing"
        )
    common = (preprocessing.interpolation, preprocessing.mean, preprocessing.std)
    if isinstance(preprocessing, BoxPreprocessing):
        return ScaledPixels(preprocessing.min_size, preprocessing.max_size, *common)
    squash = preprocessing.crop_mode == "squash"
    if not squash and preprocessing.crop_pct > 1:
        raise ValueError(
            f"export: preprocessing=true cannot pad to crop_pct={preprocessing.crop_pct}, above 1; leave it out"
        )
    return FittedPixels(preprocessing.size, None if squash else preprocessing.crop_pct, *common)
