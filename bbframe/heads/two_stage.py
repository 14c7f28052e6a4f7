"""torchvision's two-stage detectors on levels of any strides: Faster R-CNN and Mask R-CNN."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from bbframe.heads.anchors import RATIOS, Anchors, region_pool
from bbframe.heads.detectors import Detector, Result, Target, kept_boxes
from bbframe.heads.global_losses import ImageSampler, count_factors
from bbframe.heads.head_options import FasterRCNNOptions
from bbframe.heads.pyramids import SubsampledLevels


def full_precision(head: nn.Module) -> nn.Module:
    """Make a head return float32 under autocast too, because the code that follows it counts pixels."""
    head.register_forward_hook(_to_float32)
    return head


def _to_float32(head: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_to_float32(head, args, part) for part in output)  # a tuple or a list


class FasterRCNNDetector(Detector):
    """Faster R-CNN (Ren et al., arXiv:1506.01497)."""

    default_extra_levels = 1

    def extra_levels(self, channels: int, count: int) -> nn.Module:
        return SubsampledLevels(count)

    def torchvision_model(self, options: FasterRCNNOptions, num_classes: int) -> FasterRCNN:
        backbone = SimpleNamespace(out_channels=options.channels)  # all that torchvision asks of one
        return self.sampled_by_image(FasterRCNN(backbone, **self.rcnn_parts(options, num_classes)))

    def rcnn_parts(self, options: FasterRCNNOptions, num_classes: int) -> dict[str, Any]:
        """What both R-CNNs are built from, by torchvision's argument names. Class 0 is the background."""
        return {
            "rpn_anchor_generator": Anchors(self.strides, [options.anchor_scale or 8.0], RATIOS),
            "rpn_head": full_precision(RPNHead(options.channels, len(RATIOS))),
            "box_roi_pool": region_pool(self.pyramid.strides, 7),
            "box_predictor": full_precision(FastRCNNPredictor(1024, num_classes + 1)),
            **{f"box_{key}": value for key, value in kept_boxes(options).items()},
        }

    def sampled_by_image(self, model: FasterRCNN) -> FasterRCNN:
        """The model with samplers of boxes whose draws depend on the image."""
        rpn, boxes = model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler
        samplers = [ImageSampler(old.batch_size_per_image, old.positive_fraction) for old in (rpn, boxes)]
        self.rpn_sampler, self.box_sampler = model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler = samplers
        return model

    def run(self, levels: list[Tensor], images: ImageList, targets: list[Target] | None) -> Result:
        named = OrderedDict((str(i), x) for i, x in enumerate(levels))
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
            # one seed an image, so that several processes sample the boxes that one process would
            seeds = torch.stack([t["seed"] for t in targets]).tolist() if "seed" in targets[0] else None
            self.rpn_sampler.seeds = self.box_sampler.seeds = seeds
        proposals, losses = self.model.rpn(images, named, targets)
        detections, more = self.model.roi_heads(named, proposals, images.image_sizes, targets)
        if targets is not None:
            return self._of_all_processes({**more, **losses}, len(targets))
        for found in detections:
            found["labels"] = found["labels"] - 1
        return detections

    def _of_all_processes(self, losses: dict[str, Tensor], images: int) -> dict[str, Tensor]:
        """Losses divided by the sampled boxes of all processes."""
        counts = [self.rpn_sampler.sampled, self.box_sampler.sampled, self.box_sampler.positives]
        anchors, boxes, masks = count_factors(counts, images, next(iter(losses.values())).device)
        factors = {"loss_objectness": anchors, "loss_rpn_box_reg": anchors, "loss_mask": masks}
        return {name: loss * factors.get(name, boxes) for name, loss in losses.items()}


class MaskRCNNDetector(FasterRCNNDetector):
    """Mask R-CNN (He et al., arXiv:1703.06870)."""

    def torchvision_model(self, options: FasterRCNNOptions, num_classes: int) -> FasterRCNN:
        model = MaskRCNN(
            SimpleNamespace(out_channels=options.channels),
            mask_roi_pool=region_pool(self.pyramid.strides, 14),
            mask_predictor=full_precision(MaskRCNNPredictor(256, 256, num_classes + 1)),
            **self.rcnn_parts(options, num_classes),
        )
        return self.sampled_by_image(model)
