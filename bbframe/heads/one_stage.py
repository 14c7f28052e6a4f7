"""torchvision's one-stage detectors on levels of any strides: FCOS and RetinaNet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import Conv2dNormActivation

from bbframe.heads.anchors import RATIOS, Anchors
from bbframe.heads.detectors import Detector, Result, Target, kept_boxes
from bbframe.heads.global_losses import count_factors
from bbframe.heads.head_options import FCOSOptions, RetinaNetOptions
from bbframe.heads.pyramids import ConvolvedLevels


class OneStageDetector(Detector):
    """A detector that predicts boxes from every place of every level."""

    default_extra_levels = 2

    def extra_levels(self, channels: int, count: int) -> nn.Module:
        return ConvolvedLevels(channels, count)

    def run(self, levels: list[Tensor], images: ImageList, targets: list[Target] | None) -> Result:
        outputs = {key: x.float() for key, x in self.model.head(levels).items()}  # autocast may have halved them
        anchors = self.model.anchor_generator(images, levels)
        places = self.model.anchor_generator.num_anchors_per_location()
        counts = [x.shape[-2] * x.shape[-1] * n for x, n in zip(levels, places, strict=True)]
        if targets is not None:
            return self.model.compute_loss(targets, outputs, anchors, *self.more_for_loss(counts))
        split = {key: list(x.split(counts, dim=1)) for key, x in outputs.items()}
        return self.model.postprocess_detections(split, [list(x.split(counts)) for x in anchors], images.image_sizes)

    def more_for_loss(self, counts: list[int]) -> tuple[Any, ...]:
        """What the model's `compute_loss` takes besides; `counts` are the numbers of anchors a level."""
        return ()


class FCOSLosses(FCOSHead):
    """torchvision's head, whose losses are divided by the foreground places of all processes."""

    def compute_loss(
        self,
        targets: list[Target],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        losses = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        foreground = torch.stack([(matched >= 0).sum() for matched in matched_idxs]).sum()
        (factor,) = count_factors([foreground], len(targets), foreground.device)
        return {name: loss * factor for name, loss in losses.items()}


class FCOSDetector(OneStageDetector):
    """FCOS (Tian et al., arXiv:1904.01355). Boxes count from a score of 0.05: torchvision's 0.2 costs precision."""

    def torchvision_model(self, options: FCOSOptions, num_classes: int) -> FCOS:
        head = FCOSLosses(options.channels, 1, num_classes, options.num_convs)
        for norm in head.modules():
            if isinstance(norm, nn.GroupNorm):
                norm.num_groups = min(32, options.channels // 2)  # one channel of a map of one pixel has no variance
        # sides end in a ReLU: with a bias of 0 half the places get no gradient, and training may lose the rest
        nn.init.ones_(head.regression_head.bbox_reg.bias)
        anchors = Anchors(self.strides, [options.anchor_scale or 1.0], [1.0])
        kept = {"score_thresh": 0.05, **kept_boxes(options)}
        backbone = SimpleNamespace(out_channels=options.channels)  # all that torchvision asks of one
        return FCOS(backbone, num_classes, anchor_generator=anchors, head=head, **kept)

    def more_for_loss(self, counts: list[int]) -> tuple[Any, ...]:
        return (counts,)


class RetinaNetDetector(OneStageDetector):
    """RetinaNet (Lin et al., arXiv:1708.02002)."""

    def torchvision_model(self, options: RetinaNetOptions, num_classes: int) -> RetinaNet:
        scale = options.anchor_scale or 4.0
        anchors = Anchors(self.strides, [scale * 2 ** (i / 3) for i in range(3)], RATIOS)
        head = RetinaNetHead(options.channels, anchors.num_anchors_per_location()[0], num_classes)
        for part in (head.classification_head, head.regression_head):  # their constructors know no depth but 4
            part.conv = _tower(options.channels, options.num_convs)
        backbone = SimpleNamespace(out_channels=options.channels)
        return RetinaNet(backbone, num_classes, anchor_generator=anchors, head=head, **kept_boxes(options))


def _tower(channels: int, depth: int) -> nn.Sequential:
    """Convolutions and ReLU, with RetinaNet's initial weights."""
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(depth)))
    for name, parameter in tower.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)
    return tower
