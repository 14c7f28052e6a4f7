"""Detectors on the maps of any backbone: pyramid -> levels -> losses, or boxes.

Heads, matching, losses and choice of boxes are torchvision's; maps, pyramid, anchors and the pooling of regions are
bbframe's. Images are normalised and resized before; labels are 0..K-1 everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from bbframe.heads.head_options import DetectorOptions
from bbframe.heads.pyramids import make_pyramid

PASTED = 16  # masks of image size that are in float32 at once

Target = dict[str, Tensor]
Result = dict[str, Tensor] | list[Target]  # losses by name, or the detections of each image


class DetectionHead(nn.Module, ABC):
    """What the task "detection" asks of a head.

    `reads` are the positions of the maps that it uses, and images have to be padded to a multiple of `multiple`.
    """

    reads: Sequence[int]
    multiple: int

    @abstractmethod
    def forward(
        self, maps: Sequence[Tensor], sizes: list[tuple[int, int]], targets: list[Target] | None = None
    ) -> Result:
        """The losses by name, given targets (in training mode); else the detections of each image (in eval mode).

        `sizes` are the (height, width) of the images inside the padded batch; boxes are in their pixels, x1 y1 x2 y2.
        A target has boxes (N, 4), labels (N,) and, for a head with masks, masks (N, H, W); N may be 0. Detections have
        boxes, scores and labels, best first, and with masks also masks (N, 1, 28, 28), the probability of each part of
        a box, which `paste` turns into masks of an image.
        """

    def notes(self) -> dict[str, str]:
        """What a run logs about the head before it trains: {word: text}."""
        return {}


class Detector(DetectionHead):
    """A pyramid on a backbone's maps of these `channels` and `strides`, and one of torchvision's detectors on it.

    `strides` are those of all levels. Raises ValueError for strides on which the pyramid cannot stand.
    """

    model: Any  # torchvision's, less its backbone and its transform of images
    default_extra_levels: int

    def __init__(self, options: DetectorOptions, channels: Sequence[int], strides: Sequence[int], num_classes: int):
        super().__init__()
        self.pyramid = make_pyramid(options.pyramid, channels, strides, options.channels, options.wanted)
        self.reads = self.pyramid.reads
        self.multiple = max(strides[i] for i in self.reads)
        count = self.default_extra_levels if options.extra_levels is None else options.extra_levels
        self.extra = self.extra_levels(options.channels, count)
        pooled = self.pyramid.strides
        self.strides = pooled + [pooled[-1] * 2**i for i in range(1, count + 1)]
        self.model = self.torchvision_model(options, num_classes)
        del self.model.backbone, self.model.transform

    @abstractmethod
    def extra_levels(self, channels: int, count: int) -> nn.Module:
        """The levels that follow those of the pyramid."""

    @abstractmethod
    def torchvision_model(self, options: Any, num_classes: int) -> nn.Module:
        """The detector for levels of `self.strides`."""

    @abstractmethod
    def run(self, levels: list[Tensor], images: ImageList, targets: list[Target] | None) -> Result:
        """As `forward`, on all levels."""

    def forward(
        self, maps: Sequence[Tensor], sizes: list[tuple[int, int]], targets: list[Target] | None = None
    ) -> Result:
        assert self.training == (targets is not None), "targets are for training mode, and training mode for targets"
        levels = self.extra(self.pyramid(maps))
        return self.run(levels, ImageList(levels[0], sizes), targets)  # only the sizes of the images are read

    def notes(self) -> dict[str, str]:
        levels = ", ".join(f"{stride:g}" for stride in self.strides)
        return {"pyramid": f"{self.pyramid.title}, levels of stride {levels}"}


def kept_boxes(options: DetectorOptions) -> dict[str, Any]:
    """The given thresholds, by torchvision's argument names."""
    given = {
        "score_thresh": options.score_threshold,
        "nms_thresh": options.nms_threshold,
        "detections_per_img": options.detections_per_image,
    }
    return {key: value for key, value in given.items() if value is not None}


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities (N, 1, 28, 28) in boxes (N, 4) -> masks (N, H, W) bool of an image of `size` (height, width).

    The masks are on the CPU, because torchvision reads each side of each box and would wait for a GPU every time.
    """
    parts = zip(masks.cpu().split(PASTED), boxes.cpu().split(PASTED), strict=True)
    return torch.cat([paste_masks_in_image(m, b, size)[:, 0] > 0.5 for m, b in parts])


def pad(images: Sequence[Tensor], multiple: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Images (C, H_i, W_i) -> one batch (B, C, H, W), zeros to the right and below, and their (height, width).

    H and W are the least multiples of `multiple` that hold every image.
    """
    sizes = [(x.shape[-2], x.shape[-1]) for x in images]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for padded, x in zip(batch, images, strict=True):
        padded[:, : x.shape[-2], : x.shape[-1]] = x
    return batch, sizes
