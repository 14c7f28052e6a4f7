"""NAT (Hassani et al., "Neighborhood Attention Transformer", arXiv:2204.07143)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import HierarchicalConfig
from bbframe.keymap import KeyMap
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.neighborhood import NeighborhoodAttention, neighborhoods
from bbframe.layers.norm import MapNorms
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.registry import register
from bbframe.schema import Range


@dataclass(kw_only=True)
class NatConfig(HierarchicalConfig):
    """The defaults are NAT-Mini's. A place attends to `kernel_size` ** 2 neighbours. Layer scale is there when its
    first value is above 0."""

    model_type: ClassVar[str] = "nat"

    patch_size: Literal[4] = 4  # two convolutions of stride 2
    embed_dim: Annotated[int, Range(2, 32_768, "channels")] = 64
    depths: ranges.Depths = (3, 4, 6, 5)
    num_heads: ranges.HeadCounts = (2, 4, 8, 16)
    kernel_size: Annotated[int, Range(1, 63)] = 7
    mlp_ratio: ranges.Ratio = 3.0
    layer_scale_init_value: ranges.LayerScale = 0.0

    def validate(self) -> None:
        super().validate()
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"{self.model_type}: kernel_size={self.kernel_size} must be odd, so that a window has a centre; "
                f"the nearest is {self.kernel_size - 1}"
            )

    def dilations_of(self, level: int) -> tuple[int, ...]:
        """The dilation of each block of a stage, counted from 0."""
        return (1,) * self.depths[level]


class Stem(nn.Module):
    """Two convolutions of stride 2, normalised: (B, num_channels, H, W) -> (B, H / 4, W / 4, embed_dim)."""

    def __init__(self, config: NatConfig):
        super().__init__()
        width = config.embed_dim
        self.conv1 = nn.Conv2d(config.num_channels, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv2(self.conv1(x)).permute(0, 2, 3, 1)))


class Downsampling(nn.Module):
    """Halve a map and double its channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 * C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention of each place to its neighbours, those `around` it, then a perceptron; maps (B, H, W, C)."""

    def __init__(self, config: NatConfig, channels: int, num_heads: int, dilation: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.attn = NeighborhoodAttention(
            nn.Linear(channels, 3 * channels, bias=config.qkv_bias),
            num_heads,
            config.kernel_size,
            dilation,
            config.attention_probs_dropout_prob,
            config.hidden_dropout_prob,
        )
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = Mlp(channels, int(channels * config.mlp_ratio), config.hidden_act, config.hidden_dropout_prob)
        self.scale = None
        if config.layer_scale_init_value > 0:  # of the two branches
            self.scale = nn.Parameter(torch.full((2, channels), config.layer_scale_init_value))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *around: Tensor) -> Tensor:
        x = self._add(x, self.attn(self.norm1(x), *around), 0)
        return self._add(x, self.mlp(self.norm2(x)), 1)

    def _add(self, x: Tensor, branch: Tensor, which: int) -> Tensor:
        return x + self.drop_path(branch if self.scale is None else self.scale[which] * branch)


class NatStage(nn.Module):
    """The blocks of one resolution, behind a halving in all but the first stage; maps (B, H, W, C)."""

    def __init__(self, config: NatConfig, level: int, rates: list[float]):
        super().__init__()
        channels, heads = config.embed_dim * 2**level, config.num_heads[level]
        self.kernel_size, self.dilations = config.kernel_size, config.dilations_of(level)
        self.downsample = Downsampling(channels // 2) if level else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, channels, heads, dilation, rate)
            for dilation, rate in zip(self.dilations, rates, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        _, H, W, _ = x.shape
        around = {d: neighborhoods(H, W, self.kernel_size, d, x.device) for d in sorted(set(self.dilations))}
        for block, dilation in zip(self.blocks, self.dilations, strict=True):
            x = block(x, *around[dilation])
        return x


# both architectures: nat and dinat
NAMES = """
embeddings.patch_embeddings.projection.0                       stem.conv1
embeddings.patch_embeddings.projection.1                       stem.conv2
embeddings.norm                                                stem.norm
encoder.levels.{}.layers.{}.layernorm_before                   stages.{}.blocks.{}.norm1
encoder.levels.{}.layers.{}.attention.self.rpb                 stages.{}.blocks.{}.attn.rpb
encoder.levels.{}.layers.{}.attention.self.(query|key|value)   stages.{}.blocks.{}.attn.qkv
encoder.levels.{}.layers.{}.attention.output.dense             stages.{}.blocks.{}.attn.proj
encoder.levels.{}.layers.{}.layernorm_after                    stages.{}.blocks.{}.norm2
encoder.levels.{}.layers.{}.intermediate.dense                 stages.{}.blocks.{}.mlp.fc1
encoder.levels.{}.layers.{}.output.dense                       stages.{}.blocks.{}.mlp.fc2
encoder.levels.{}.layers.{}.layer_scale_parameters             stages.{}.blocks.{}.scale
encoder.levels.{}.downsample.reduction                         stages.{+1}.downsample.conv
encoder.levels.{}.downsample.norm                              stages.{+1}.downsample.norm
hidden_states_norms.stem                                       norms.stem
hidden_states_norms.stage{}                                    norms.stage{}
"""


@register
class NatBackbone(Backbone):
    """NAT; maps at strides 4 (stem), 4, 8, 16 and 32, each layer-normalised. Hidden states are maps (B, H, W, C);
    attentions, (B, heads, H, W, kernel_size ** 2) a block, the neighbours of a place row by row."""

    config_class = NatConfig
    has_attentions = True
    keys = KeyMap(NAMES, prefixes=["nat."], ignored=["classifier.*", "layernorm.*"], fresh=["hidden_states_norms.*"])

    def __init__(self, config: NatConfig):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(NatStage(config, i, rates[i]) for i in range(self.num_built - 1))
        self.norms = MapNorms({s.name: s.channels for s in config.stages[: self.num_built]}, self.out_features, 1e-5)
        initialise(self, config.initializer_range)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return self.norms[name](state.permute(0, 3, 1, 2))
