"""A backbone of one's own, as a user would write it, and one that is found inside of a bigger model's checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import Host, KeyMap
from bbframe.selection import Stage


@dataclass(kw_only=True)
class OwnConfig(BackboneConfigMixin):
    """Two pointwise stages."""

    model_type: ClassVar[str] = "own-net"

    num_channels: int = 3
    width: int = 4

    @property
    def stages(self):
        return (Stage("stem", self.width, 1), Stage("stage1", self.width, 2))


class OwnBackbone(Backbone):
    """A stem and an average pooling convolution."""

    config_class = OwnConfig
    keys = KeyMap("embed  stem\nlayer.{}  stages.{}")

    def __init__(self, config):
        super().__init__(config)
        self.stem = nn.Conv2d(config.num_channels, config.width, 1)
        self.stages = nn.ModuleList(nn.Conv2d(config.width, config.width, 2, 2) for _ in range(self.num_built - 1))

    def forward_stages(self, x):
        states = [self.stem(x)]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return states


def _of_detector(data):
    inner = data["backbone_config"]
    return {"width": inner.get("width", 4), "novelty": 1} if inner["model_type"] == "own" else None


class HostedBackbone(OwnBackbone):
    """Found in the checkpoints of a detector, which settle its width but not its number of channels."""

    hosts = {"own-detector": Host(OwnBackbone.keys.inside("model.", "trunk.", ignored=["head.*"]), _of_detector)}
