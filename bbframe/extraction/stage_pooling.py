"""The features of every stage of a backbone in one pass: means over maps, class tokens, means over boxes."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bbframe.backbone import Backbone
from bbframe.factory import BackboneOptions, make_backbone

MEAN, CLASS_TOKEN = "mean", "class_token"
Key = tuple[str, str]  # a stage and how its map became a vector: ("stage3", "mean")
CELLS = 7  # a side of the grid of bilinear samples whose mean is a box's feature, as in Mask R-CNN (arXiv:1703.06870)


def make_with_all_stages(options: BackboneOptions) -> Backbone:
    """The backbone of checked options, in eval mode, with the map of every stage that can be selected.

    A pyramid that is made of a fixed number of stages keeps the selection that its configuration states. Raises
    ValueError as `make_backbone` does.
    """
    network = options.network_config
    names = network.selectable_names
    given = {key: value for key, value in options.given.items() if key not in ("out_indices", "out_strides")}
    config = copy.deepcopy(options.config)
    try:
        config.select(out_features=names)
    except ValueError:
        return make_backbone(options).eval()
    chosen = dataclasses.replace(options, config=config, given={**given, "out_features": names})
    return make_backbone(chosen).eval()


class StagePooling:
    """Turns images, or with `boxes` the boxes in them, into one vector a stage: `keys` names them in network order."""

    def __init__(self, net: Backbone, boxes: bool = False) -> None:
        self.net = net
        self.stages = list(net.out_features)
        names = net.config.stage_names
        self.places = {stage: names.index(stage) for stage in self.stages}
        self.with_tokens = net.has_class_token and not boxes
        kinds = (MEAN, CLASS_TOKEN) if self.with_tokens else (MEAN,)
        self.keys: list[Key] = [(stage, kind) for stage in self.stages for kind in kinds]
        self.channels = dict(zip(self.stages, net.channels, strict=True))
        self.strides = dict(zip(self.stages, net.strides, strict=True))

    @torch.inference_mode()
    def images(self, pixels: Tensor) -> dict[Key, Tensor]:
        """Normalised images (B, num_channels, H, W) -> a float32 tensor (B, C) on the CPU for each key."""
        output = self.net(pixels, output_hidden_states=self.with_tokens)
        found: dict[Key, Tensor] = {}
        for stage, x in zip(self.stages, output.feature_maps, strict=True):
            found[stage, MEAN] = x.float().mean((2, 3)).cpu()
            if self.with_tokens:
                token = self.net.class_token(output.hidden_states[self.places[stage]], stage)
                assert token is not None
                found[stage, CLASS_TOKEN] = token.float().cpu()
        return found

    @torch.inference_mode()
    def boxes(self, pixels: Tensor, boxes: Sequence[Tensor]) -> dict[Key, Tensor]:
        """As `images`, a row for each box: `boxes` are (N, 4) xyxy in pixels, for each image.

        A row is the mean of bilinear samples of the map inside of the box (RoI align).
        """
        from torchvision.ops import roi_align

        maps = self.net(pixels).feature_maps
        device = pixels.device
        given = [box.to(device, torch.float32) for box in boxes]
        return {
            (stage, MEAN): roi_align(x.float(), given, CELLS, 1 / self.strides[stage], 2, True).mean((2, 3)).cpu()
            for stage, x in zip(self.stages, maps, strict=True)
        }


def network_digest(net: Backbone, more: Any) -> str:
    """The SHA-256 of what decides a network's features: its config, every weight and buffer, and `more` plain data."""
    digest = hashlib.sha256(json.dumps([net.config.to_dict(), more], sort_keys=True, default=str).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
