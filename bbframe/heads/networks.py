"""torchvision's detectors, built for levels of any strides and without a backbone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import Conv2dNormActivation

from bbframe.heads.anchors import Anchors, region_pool

RATIOS = (0.5, 1.0, 2.0)


class Plan(NamedTuple):
    """What a detector is built from: levels of `channels` and `strides`, the first `pooled` of which give regions."""

    channels: int
    num_classes: int
    strides: list[float]
    pooled: int
    anchor_scale: float | None
    num_convs: int
    kept: dict[str, Any]  # which boxes are kept, by torchvision's names

    @property
    def backbone(self) -> SimpleNamespace:
        """All that torchvision's models ask of a backbone when they are built."""
        return SimpleNamespace(out_channels=self.channels)


def fcos(plan: Plan) -> FCOS:
    """FCOS (Tian et al., arXiv:1904.01355). Boxes count from a score of 0.05: torchvision's 0.2 costs precision."""
    head = FCOSHead(plan.channels, 1, plan.num_classes, plan.num_convs)
    for norm in head.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.num_groups = min(32, plan.channels // 2)  # one channel of a map of one pixel has no variance
    # sides end in a ReLU: from a bias of 0 half the places start without a gradient, and training may lose the rest
    nn.init.ones_(head.regression_head.bbox_reg.bias)
    anchors = Anchors(plan.strides, [plan.anchor_scale or 1.0], [1.0])
    kept = {"score_thresh": 0.05, **plan.kept}
    return FCOS(plan.backbone, plan.num_classes, anchor_generator=anchors, head=head, **kept)


def retinanet(plan: Plan) -> RetinaNet:
    """RetinaNet (Lin et al., arXiv:1708.02002)."""
    scale = plan.anchor_scale or 4.0
    anchors = Anchors(plan.strides, [scale * 2 ** (i / 3) for i in range(3)], RATIOS)
    head = RetinaNetHead(plan.channels, anchors.num_anchors_per_location()[0], plan.num_classes)
    for part in (head.classification_head, head.regression_head):  # their constructors know no depth but 4
        part.conv = _tower(plan.channels, plan.num_convs)
    return RetinaNet(plan.backbone, plan.num_classes, anchor_generator=anchors, head=head, **plan.kept)


def _tower(channels: int, depth: int) -> nn.Sequential:
    """Convolutions and ReLU, with RetinaNet's initial weights."""
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(depth)))
    for name, parameter in tower.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)
    return tower


# What follows these heads of the R-CNNs counts pixels, and under autocast must not do so in half precision.


class FullRPNHead(RPNHead):
    """torchvision's, with float32 results."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, boxes = super().forward(x)
        return [y.float() for y in scores], [y.float() for y in boxes]


class FullBoxPredictor(FastRCNNPredictor):
    """torchvision's, with float32 results."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = super().forward(x)
        return scores.float(), boxes.float()


class FullMaskPredictor(MaskRCNNPredictor):
    """torchvision's, with float32 results."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


def faster_rcnn(plan: Plan) -> FasterRCNN:
    """Faster R-CNN (Ren et al., arXiv:1506.01497)."""
    return FasterRCNN(plan.backbone, **_rcnn_parts(plan))


def mask_rcnn(plan: Plan) -> MaskRCNN:
    """Mask R-CNN (He et al., arXiv:1703.06870)."""
    pool, predictor = region_pool(plan.strides[: plan.pooled], 14), FullMaskPredictor(256, 256, plan.num_classes + 1)
    return MaskRCNN(plan.backbone, **_rcnn_parts(plan), mask_roi_pool=pool, mask_predictor=predictor)


def _rcnn_parts(plan: Plan) -> dict[str, Any]:
    return {
        "rpn_anchor_generator": Anchors(plan.strides, [plan.anchor_scale or 8.0], RATIOS),
        "rpn_head": FullRPNHead(plan.channels, len(RATIOS)),
        "box_roi_pool": region_pool(plan.strides[: plan.pooled], 7),
        "box_predictor": FullBoxPredictor(1024, plan.num_classes + 1),  # class 0 is the background
        **{f"box_{key}": value for key, value in plan.kept.items()},
    }


DETECTORS: dict[str, Callable[[Plan], nn.Module]] = {
    "fcos": fcos,
    "retinanet": retinanet,
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": mask_rcnn,
}
