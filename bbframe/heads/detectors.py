"""torchvision's detectors on the maps of any backbone: pyramid -> heads -> losses, or boxes.

Its models run by parts. Heads, matching, losses and the choice of boxes are theirs; maps, pyramid, anchors and the
pooling of regions come from here. Images are normalised and resized before, and labels are 0..K-1 everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from bbframe.heads.levels import WANTED, WITH_MASKS, check_detector
from bbframe.heads.networks import DETECTORS, Plan
from bbframe.heads.pyramids import ConvolvedLevels, SubsampledLevels, make_pyramid

PASTED = 16  # so many masks of a whole image are in float32 at once

Target = dict[str, Tensor]


class Detector(nn.Module):
    """A pyramid on a backbone's maps of these `channels` and `strides`, and the detector of that name on it.

    `pyramid` is "fpn", "simple", or None for what the strides ask for. `pyramid_channels` is its width, `extra_levels`
    how many coarser levels follow those of the maps (None: 2 for one-stage detectors, 1 for R-CNNs), `num_convs` the
    depth of a one-stage detector's towers. `anchor_scale` is the side of anchors in strides of their level (None: 1
    for FCOS, 4 for RetinaNet, 8 for R-CNNs). A threshold of None is torchvision's, but 0.05 for FCOS's scores.

    `reads` are the positions of the maps that are used, `strides` those of all levels, and images have to be padded to
    a multiple of `multiple`. Raises ValueError for strides that do not rise, and values that a detector cannot take.
    """

    multiple: int
    model: Any  # torchvision's, less its backbone and its transform of images

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        name: str,
        pyramid: str | None = None,
        pyramid_channels: int = 256,
        extra_levels: int | None = None,
        num_convs: int = 4,
        anchor_scale: float | None = None,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        detections_per_image: int = 100,
    ):
        super().__init__()
        check_detector(name, pyramid_channels, num_convs)
        self.pyramid = make_pyramid(pyramid, channels, strides, pyramid_channels, WANTED[name])
        self.reads = self.pyramid.reads
        self.multiple = max(strides[i] for i in self.reads)
        given = {
            "score_thresh": score_threshold,
            "nms_thresh": nms_threshold,
            "detections_per_img": detections_per_image,
        }
        kept = {key: value for key, value in given.items() if value is not None}
        self.two_stage = name in ("faster_rcnn", "mask_rcnn")
        self.takes_masks = name in WITH_MASKS
        count = extra_levels if extra_levels is not None else (1 if self.two_stage else 2)
        self.extra = SubsampledLevels(count) if self.two_stage else ConvolvedLevels(pyramid_channels, count)
        pooled = self.pyramid.strides
        self.strides = pooled + [pooled[-1] * 2**i for i in range(1, count + 1)]
        plan = Plan(pyramid_channels, num_classes, self.strides, len(pooled), anchor_scale, num_convs, kept)
        self.model = DETECTORS[name](plan)
        del self.model.backbone, self.model.transform

    def forward(
        self, maps: Sequence[Tensor], sizes: list[tuple[int, int]], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[Target]:
        """The losses by name, given targets (in training mode); else the detections of each image (in eval mode).

        `sizes` are the (height, width) of the images inside the padded batch; boxes are in their pixels, x1 y1 x2 y2.
        A target has boxes (N, 4), labels (N,) and, for Mask R-CNN, masks (N, H, W); N may be 0. Detections have
        boxes, scores and labels, best first, and with Mask R-CNN masks (N, 1, 28, 28), the probability of each part of
        a box, which `paste` turns into masks of an image.
        """
        assert self.training == (targets is not None), "targets are for training mode, and training mode for targets"
        levels = self.extra(self.pyramid(maps))
        images = ImageList(levels[0], sizes)  # only the sizes are read
        if self.two_stage:
            return self._two_stage(levels, images, targets)
        return self._one_stage(levels, images, targets)

    def _one_stage(
        self, levels: list[Tensor], images: ImageList, targets: list[Target] | None
    ) -> dict[str, Tensor] | list[Target]:
        outputs = {key: x.float() for key, x in self.model.head(levels).items()}  # autocast may have halved them
        anchors = self.model.anchor_generator(images, levels)
        places = self.model.anchor_generator.num_anchors_per_location()
        counts = [x.shape[-2] * x.shape[-1] * n for x, n in zip(levels, places, strict=True)]
        if targets is not None:
            more = (counts,) if isinstance(self.model, FCOS) else ()
            return self.model.compute_loss(targets, outputs, anchors, *more)
        split = {key: list(x.split(counts, dim=1)) for key, x in outputs.items()}
        return self.model.postprocess_detections(split, [list(x.split(counts)) for x in anchors], images.image_sizes)

    def _two_stage(
        self, levels: list[Tensor], images: ImageList, targets: list[Target] | None
    ) -> dict[str, Tensor] | list[Target]:
        named = OrderedDict((str(i), x) for i, x in enumerate(levels))
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        proposals, losses = self.model.rpn(images, named, targets)
        detections, more = self.model.roi_heads(named, proposals, images.image_sizes, targets)
        if targets is not None:
            return {**more, **losses}
        for found in detections:
            found["labels"] = found["labels"] - 1
        return detections


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities (N, 1, 28, 28) in boxes (N, 4) -> masks (N, H, W) bool of an image of `size` (height, width).

    The masks lie on the CPU, because torchvision reads each side of each box: a GPU would be waited for every time.
    """
    parts = zip(masks.cpu().split(PASTED), boxes.cpu().split(PASTED), strict=True)
    return torch.cat([paste_masks_in_image(m, b, size)[:, 0] > 0.5 for m, b in parts])


def pad(images: Sequence[Tensor], multiple: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Put images (C, H_i, W_i) into one batch (B, C, H, W), zeros to the right and below, and give their sizes.

    H and W are the least multiples of `multiple` that hold every image.
    """
    sizes = [(x.shape[-2], x.shape[-1]) for x in images]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for padded, x in zip(batch, images, strict=True):
        padded[:, : x.shape[-2], : x.shape[-1]] = x
    return batch, sizes
