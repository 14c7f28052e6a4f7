"""Swin Transformer (Liu et al., "Hierarchical Vision Transformer using Shifted Windows", arXiv:2103.14030)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import HierarchicalConfig
from bbframe.hub.adapted_tables import adapt_offsets, adapt_positions
from bbframe.keymap import KeyMap
from bbframe.layers.attention import Attention
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.norm import MapNorms
from bbframe.layers.positions import patch_grid, resize_positions
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.layers.windows import fill_up, relative_index, shift_mask, unwindow, windows
from bbframe.registry import register
from bbframe.schema import Sides


@dataclass(kw_only=True)
class SwinConfig(HierarchicalConfig):
    """The defaults are Swin-T's. `image_size` (a side, or height and width) is the training size that absolute
    positions, if there are any, belong to."""

    model_type: ClassVar[str] = "swin"
    ignored_fields: ClassVar[frozenset[str]] = HierarchicalConfig.ignored_fields | {"encoder_stride"}

    image_size: Sides = 224
    window_size: ranges.WindowSize = 7
    use_absolute_embeddings: bool = False


class Stem(nn.Module):
    """Patches, normalised, and absolute positions if there are any: (B, C, H, W) -> (B, H / P, W / P, embed_dim)."""

    def __init__(self, config: SwinConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.patch = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, config.patch_size)
        self.norm = nn.LayerNorm(config.embed_dim)
        self.positions = None
        if config.use_absolute_embeddings:
            self.grid = patch_grid(config.image_size, config.patch_size)
            self.positions = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], config.embed_dim))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        x = fill_up(x.permute(0, 2, 3, 1), self.patch_size).permute(0, 3, 1, 2)
        x = self.norm(self.patch(x).permute(0, 2, 3, 1))
        if self.positions is not None:
            grid = (x.shape[1], x.shape[2])
            x = x + resize_positions(self.positions, grid, self.grid).unflatten(1, grid)
        return self.dropout(x)


def adapt_stem(
    config: SwinConfig, table: Tensor, shape: torch.Size, made_with: SwinConfig | None
) -> tuple[Tensor, str] | None:
    """A checkpoint's absolute positions made to fit `config`, and how; None when they fit or cannot be adapted."""
    grid, given = (patch_grid(c.image_size, c.patch_size) for c in (config, made_with or config))
    counts = {shape[1], given[0] * given[1]}
    extra = table.ndim == 3 and table.shape[1] not in counts and table.shape[1] - 1 in counts
    kept = table[:, 1:] if extra else table  # some versions of transformers save a class token's
    adapted = adapt_positions(kept, shape, grid, given if made_with else None, tokens=0)
    if not extra:
        return adapted
    value, how = adapted or (kept, "")
    return value, f"{how}{', ' if how else ''}without the position of a class token"


def join_patches(x: Tensor) -> Tensor:
    """Put each 2x2 places into one, the rows of a column first: (B, H, W, C) -> (B, H / 2, W / 2, 4 * C)."""
    B, H, W, C = (x := fill_up(x, 2)).shape
    return x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5).reshape(B, H // 2, W // 2, 4 * C)


class PatchMerging(nn.Module):
    """Halve a map and double its channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 * C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(join_patches(x)))


class Block(nn.Module):
    """Attention inside windows that lie `shift` further down and right, then a perceptron; maps (B, H, W, C).

    `index` and `mask` are those of `relative_index` and `shift_mask`.
    """

    def __init__(self, config: SwinConfig, channels: int, num_heads: int, shift: int, drop_path: float):
        super().__init__()
        self.size, self.shift = config.window_size, shift
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.position_bias = nn.Parameter(torch.zeros((2 * self.size - 1) ** 2, num_heads))
        qkv = nn.Linear(channels, 3 * channels, bias=config.qkv_bias)
        self.attn = Attention(qkv, num_heads, config.attention_probs_dropout_prob, config.hidden_dropout_prob)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = Mlp(channels, int(channels * config.mlp_ratio), config.hidden_act, config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        bias = self.position_bias[index].permute(2, 0, 1)
        if self.shift:
            bias = bias + mask
        attended = self.attn(windows(self.norm1(x), self.size, self.shift), bias)
        x = x + self.drop_path(unwindow(attended, self.size, H, W, self.shift))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinStage(nn.Module):
    """The blocks of one resolution, behind a merging of patches in all but the first stage; maps (B, H, W, C)."""

    def __init__(self, config: SwinConfig, level: int, rates: list[float]):
        super().__init__()
        channels, heads = config.embed_dim * 2**level, config.num_heads[level]
        self.size = config.window_size
        self.downsample = PatchMerging(channels // 2) if level else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, channels, heads, self.size // 2 if i % 2 else 0, rate) for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        index = relative_index(self.size, self.size, x.device)
        mask = shift_mask(x.shape[1], x.shape[2], self.size, self.size // 2, like=x)
        for block in self.blocks:
            x = block(x, index, mask)
        return x


# what the checkpoints of Swin and of MaskFormer's Swin hold
NAMES = """
        embeddings.patch_embeddings.projection                                    stem.patch
        embeddings.norm                                                           stem.norm
        embeddings.position_embeddings                                            stem.positions
        encoder.layers.{}.blocks.{}.layernorm_before                              stages.{}.blocks.{}.norm1
        encoder.layers.{}.blocks.{}.attention.self.relative_position_bias_table   stages.{}.blocks.{}.position_bias
        encoder.layers.{}.blocks.{}.attention.self.(query|key|value)              stages.{}.blocks.{}.attn.qkv
        encoder.layers.{}.blocks.{}.attention.output.dense                        stages.{}.blocks.{}.attn.proj
        encoder.layers.{}.blocks.{}.layernorm_after                               stages.{}.blocks.{}.norm2
        encoder.layers.{}.blocks.{}.intermediate.dense                            stages.{}.blocks.{}.mlp.fc1
        encoder.layers.{}.blocks.{}.output.dense                                  stages.{}.blocks.{}.mlp.fc2
        encoder.layers.{}.downsample.norm                                         stages.{+1}.downsample.norm
        encoder.layers.{}.downsample.reduction                                    stages.{+1}.downsample.reduction"""


@register
class SwinBackbone(Backbone):
    """Swin; maps at strides 4 (stem), 4, 8, 16 and 32, each layer-normalised. Hidden states are maps (B, H, W, C);
    attentions, (B, windows, heads, N, N) a block, with N the places of a window."""

    config_class = SwinConfig
    config: SwinConfig
    adaptable = frozenset({"image_size"})
    has_attentions = True
    keys = KeyMap(
        NAMES
        + """
        hidden_states_norms.stem                                                  norms.stem
        hidden_states_norms.stage{}                                               norms.stage{}
        """,
        prefixes=["swin."],
        ignored=["classifier.*", "decoder.*", "layernorm.*", "embeddings.mask_token", "*.relative_position_index"],
        fresh=["hidden_states_norms.*"],
    )
    _timm_keys = KeyMap(
        """
        patch_embed.proj                                        stem.patch
        patch_embed.norm                                        stem.norm
        absolute_pos_embed                                      stem.positions
        layers.{}.blocks.{}.norm{}                              stages.{}.blocks.{}.norm{}
        layers.{}.blocks.{}.attn.relative_position_bias_table   stages.{}.blocks.{}.position_bias
        layers.{}.blocks.{}.attn.qkv                            stages.{}.blocks.{}.attn.qkv
        layers.{}.blocks.{}.attn.proj                           stages.{}.blocks.{}.attn.proj
        layers.{}.blocks.{}.mlp.fc{}                            stages.{}.blocks.{}.mlp.fc{}
        layers.{}.downsample.norm                               stages.{}.downsample.norm
        layers.{}.downsample.reduction                          stages.{}.downsample.reduction
        hidden_states_norms.stem                                norms.stem
        hidden_states_norms.stage{}                             norms.stage{}
        """,
        ignored=["head.*", "norm.*", "*.relative_position_index", "*.attn_mask"],
        fresh=["hidden_states_norms.*"],
    )
    originals = (_timm_keys,)
    in_memory = (
        (r"(blocks\.\d+\.attention)\.q_proj", r"\1.self.query"),
        (r"(blocks\.\d+\.attention)\.k_proj", r"\1.self.key"),
        (r"(blocks\.\d+\.attention)\.v_proj", r"\1.self.value"),
        (r"(blocks\.\d+\.attention)\.o_proj", r"\1.output.dense"),
        (r"(blocks\.\d+\.attention)\.relative_position_bias\.(relative_position_\w+)", r"\1.self.\2"),
        (r"(blocks\.\d+)\.mlp\.fc1", r"\1.intermediate.dense"),
        (r"(blocks\.\d+)\.mlp\.fc2", r"\1.output.dense"),
    )

    def __init__(self, config: SwinConfig):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(SwinStage(config, i, rates[i]) for i in range(self.num_built - 1))
        self.norms = MapNorms({s.name: s.channels for s in config.stages[: self.num_built]}, self.out_features, 1e-5)
        initialise(self, config.initializer_range)

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        if name == "stem.positions":
            return adapt_stem(self.config, weight, shape, made_with)
        if name.endswith(".position_bias"):
            side, given = self.config.window_size, made_with and (made_with.window_size,) * 2
            return adapt_offsets(weight, shape, (side, side), given, tokens=0, mode="bicubic")  # as Swin's authors do
        return super().adapt_weight(name, weight, shape, made_with)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return self.norms[name](state.permute(0, 3, 1, 2))
