"""ConvNeXt V2 (Woo et al., "Co-designing and Scaling ConvNets with Masked Autoencoders", arXiv:2301.00808)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import DepthwiseConv
from bbframe.layers.residual import DropPath
from bbframe.models.convnext import NAMES, TIMM_NAMES, ConvNextBackbone, ConvNextFields
from bbframe.registry import register


@dataclass(kw_only=True)
class ConvNextV2Config(ConvNextFields):
    """`depths` blocks a stage of `hidden_sizes` channels; the defaults are ConvNeXt V2-T's."""

    model_type: ClassVar[str] = "convnextv2"


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its share of the map's energy (section 3.3), over maps (B, H, W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = x.square().sum(dim=(1, 2), keepdim=True, dtype=torch.float32)
        energy = energy.clamp(min=1e-38).sqrt()  # the root of 0 has no gradient
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias, x, 1 + self.weight * share.to(x.dtype))


class Block(nn.Module):
    """Depth-wise 7x7 convolution, then a perceptron with response normalisation; maps (B, C, H, W)."""

    def __init__(self, config: ConvNextV2Config, channels: int, drop_path: float):
        super().__init__()
        self.conv = DepthwiseConv(channels, 7)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.act = activation(config.hidden_act)
        self.grn = GlobalResponseNorm(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        x = self.fc2(self.grn(self.act(self.fc1(x))))
        return residual + self.drop_path(x.permute(0, 3, 1, 2))


@register
class ConvNextV2Backbone(ConvNextBackbone):
    """ConvNeXt V2; maps at strides 4 (stem), 4, 8, 16 and 32, each layer-normalised. Hidden states are maps
    (B, C, H, W) without that norm."""

    config_class = ConvNextV2Config
    block_class = Block
    keys = KeyMap(
        NAMES
        + """
        encoder.stages.{}.layers.{}.grn                            stages.{}.blocks.{}.grn
        """,
        prefixes=["convnextv2."],
        ignored=["classifier.*", "layernorm.*"],
        fresh=["hidden_states_norms.*"],
    )
    _timm_keys = KeyMap(
        TIMM_NAMES
        + """
        stages.{}.blocks.{}.mlp.grn                                stages.{}.blocks.{}.grn
        """,
        ignored=["head.*"],
        fresh=["hidden_states_norms.*"],
    )
    originals = (_timm_keys,)
