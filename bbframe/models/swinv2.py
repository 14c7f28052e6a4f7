"""Swin Transformer V2 (Liu et al., "Scaling Up Capacity and Resolution", arXiv:2111.09883)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from bbframe.backbone import Backbone
from bbframe.keymap import KeyMap
from bbframe.layers.attention import Attention, QkvLinear, join_heads, split_heads
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.positions import patch_grid
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.layers.windows import relative_index, shift_mask, unwindow, windows
from bbframe.models.swin import Stem, SwinConfig, adapt_stem, join_patches
from bbframe.registry import register
from bbframe.schema import Range


@dataclass(kw_only=True)
class Swinv2Config(SwinConfig):
    """Swin's config; the defaults are SwinV2-T's, in windows of 7.

    A window is no larger than the map of its stage for images of `image_size`. `pretrained_window_sizes`, one a stage,
    are those that the position biases were learned with; 0 for the present ones.
    """

    model_type: ClassVar[str] = "swinv2"

    pretrained_window_sizes: tuple[Annotated[int, Range(0, 256)], ...] = (0, 0, 0, 0)

    def window(self, level: int) -> tuple[int, int]:
        """The size of the windows of a stage, and how far every second block shifts them; the first stage is 0."""
        side = max(patch_grid(self.image_size, self.patch_size)[0] // 2**level, 1)
        return (self.window_size, self.window_size // 2) if side > self.window_size else (side, 0)

    def pretrained_window(self, level: int) -> int:
        """The size of the windows that the position biases of a stage were learned with."""
        given = self.pretrained_window_sizes[level : level + 1]
        return given[0] if given and given[0] > 0 else self.window(level)[0]


class PatchMerging(nn.Module):
    """Halve a map and double its channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 * C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(join_patches(x)))


class CosineAttention(Attention):
    """Attention by the cosine of query and key, times a learned scale of at most 100 (section 3.2)."""

    def __init__(self, qkv: nn.Linear, num_heads: int, attention_dropout: float, dropout: float):
        super().__init__(qkv, num_heads, attention_dropout, dropout)
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q = unit(q) * self.logit_scale.clamp(max=math.log(100)).exp()
        return self.dropout(self.proj(join_heads(self.attend(q, unit(k), v, bias, scale=1.0))))


def unit(x: Tensor) -> Tensor:
    """Vectors (..., D) of length 1 in the direction of x; zeros, as keys are where a map was filled up, stay zeros."""
    length = x.norm(dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, 1.0)  # not by some epsilon, which would make a huge gradient of it


def log_offsets(size: int, pretrained_size: int, device: torch.device) -> Tensor:
    """The offsets (rows, columns) of two places in a window, on a logarithmic scale: ((2 * size - 1)**2, 2).

    From one end of a window of `pretrained_size` to the other it is log2(9) / 3 (section 3.3).
    """
    steps = torch.arange(1 - size, size, device=device) / max(pretrained_size - 1, 1) * 8
    steps = steps.sign() * (steps.abs() + 1).log2() / 3
    return torch.cartesian_prod(steps, steps)


class Block(nn.Module):
    """Attention inside shifted windows, then a perceptron, each normalised behind; maps (B, H, W, C).

    `offsets`, `index` and `mask` are those of `log_offsets`, `relative_index` and `shift_mask`.
    """

    def __init__(self, config: Swinv2Config, channels: int, num_heads: int, window: tuple[int, int], drop_path: float):
        super().__init__()
        self.size, self.shift = window
        self.position_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, num_heads, bias=False))
        qkv = QkvLinear(channels, "qv") if config.qkv_bias else nn.Linear(channels, 3 * channels, bias=False)
        self.attn = CosineAttention(qkv, num_heads, config.attention_probs_dropout_prob, config.hidden_dropout_prob)
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = Mlp(channels, int(channels * config.mlp_ratio), config.hidden_act, config.hidden_dropout_prob)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        for norm in (self.norm1, self.norm2):  # a block begins as the identity
            nn.init.zeros_(norm.weight)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, offsets: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        bias = (16 * self.position_mlp(offsets).sigmoid())[index].permute(2, 0, 1)
        if self.shift:
            bias = bias + mask
        attended = unwindow(self.attn(windows(x, self.size, self.shift), bias), self.size, H, W, self.shift)
        x = x + self.drop_path(self.norm1(attended))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class Swinv2Stage(nn.Module):
    """The blocks of one resolution, behind a merging of patches in all but the first stage; maps (B, H, W, C)."""

    def __init__(self, config: Swinv2Config, level: int, rates: list[float]):
        super().__init__()
        channels, heads = config.embed_dim * 2**level, config.num_heads[level]
        self.size, self.shift = config.window(level)
        self.pretrained_size = config.pretrained_window(level)
        self.downsample = PatchMerging(channels // 2) if level else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, channels, heads, (self.size, self.shift if i % 2 else 0), rate)
            for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        offsets = log_offsets(self.size, self.pretrained_size, x.device).to(x.dtype)
        index = relative_index(self.size, self.size, x.device)
        # twice what Swin takes: cosines of -1 and 1 are 200 apart at the largest scale
        mask = 2 * shift_mask(x.shape[1], x.shape[2], self.size, self.shift, like=x)
        for block in self.blocks:
            x = block(x, offsets, index, mask)
        return x


@register
class Swinv2Backbone(Backbone):
    """Swin V2; maps at strides 4 (stem), 4, 8, 16 and 32. Hidden states are maps (B, H, W, C); attentions,
    (B, windows, heads, N, N) a block, with N the places of a window."""

    config_class = Swinv2Config
    config: Swinv2Config
    adaptable = frozenset({"image_size", "window_size"})
    has_attentions = True
    keys = KeyMap(
        """
        embeddings.patch_embeddings.projection                                     stem.patch
        embeddings.norm                                                            stem.norm
        embeddings.position_embeddings                                             stem.positions
        encoder.layers.{}.blocks.{}.attention.self.continuous_position_bias_mlp.{} stages.{}.blocks.{}.position_mlp.{}
        encoder.layers.{}.blocks.{}.attention.self.logit_scale                     stages.{}.blocks.{}.attn.logit_scale
        encoder.layers.{}.blocks.{}.attention.self.(query|key|value).weight        stages.{}.blocks.{}.attn.qkv.weight
        encoder.layers.{}.blocks.{}.attention.self.query.bias                      stages.{}.blocks.{}.attn.qkv.q_bias
        encoder.layers.{}.blocks.{}.attention.self.value.bias                      stages.{}.blocks.{}.attn.qkv.v_bias
        encoder.layers.{}.blocks.{}.attention.output.dense                         stages.{}.blocks.{}.attn.proj
        encoder.layers.{}.blocks.{}.layernorm_before                               stages.{}.blocks.{}.norm1
        encoder.layers.{}.blocks.{}.intermediate.dense                             stages.{}.blocks.{}.mlp.fc1
        encoder.layers.{}.blocks.{}.output.dense                                   stages.{}.blocks.{}.mlp.fc2
        encoder.layers.{}.blocks.{}.layernorm_after                                stages.{}.blocks.{}.norm2
        encoder.layers.{}.downsample.reduction                                     stages.{+1}.downsample.reduction
        encoder.layers.{}.downsample.norm                                          stages.{+1}.downsample.norm
        """,
        prefixes=["swinv2."],
        ignored=[
            *("classifier.*", "decoder.*", "layernorm.*", "embeddings.mask_token"),
            *("*.relative_position_index", "*.relative_coords_table"),
        ],
    )

    def __init__(self, config: Swinv2Config):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(Swinv2Stage(config, i, rates[i]) for i in range(self.num_built - 1))
        initialise(self, config.initializer_range)

    @classmethod
    def adapt_config(cls, config: Swinv2Config, made_with: Swinv2Config) -> str | None:
        """Other windows: those of the checkpoint are the ones that its position biases were learned with."""
        levels = range(config.num_layers)
        same = config.pretrained_window_sizes == made_with.pretrained_window_sizes  # the caller has not said otherwise
        learned = tuple(made_with.pretrained_window(level) for level in levels)
        if not same or all(config.pretrained_window(level) == learned[level] for level in levels):
            return None
        config.pretrained_window_sizes = learned
        return f"pretrained_window_sizes={list(learned)}, the windows that the checkpoint was trained with"

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        if name == "stem.positions":
            return adapt_stem(self.config, weight, shape, made_with)
        return super().adapt_weight(name, weight, shape, made_with)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return state.permute(0, 3, 1, 2)
