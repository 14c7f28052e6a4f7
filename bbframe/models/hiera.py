"""Hiera (Ryali et al., "A Hierarchical Vision Transformer without the Bells-and-Whistles", arXiv:2306.00989)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import KeyMap
from bbframe.layers.attention import DotProductAttention, join_heads
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.norm import MapNorms
from bbframe.layers.pooling import largest
from bbframe.layers.positions import patch_grid, resize_positions
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.layers.windows import blank_bias, repeat_edges, rows_as_units, unwindow, windows
from bbframe.registry import register
from bbframe.schema import Length, Range, Rate, Sides, demand, pair
from bbframe.selection import Stage


@dataclass(kw_only=True)
class HieraConfig(BackboneConfigMixin):
    """The defaults are Hiera-B's. What has a height and a width is a pair, or one number for both.

    `image_size` is the training size that the position table belongs to. The first blocks of `num_query_pool` stages,
    from the second on, pool their queries by `query_stride`. A stage with `masked_unit_attention` attends inside units
    of `masked_unit_size` tokens of the first stage, as does the first block behind it; others attend to the whole map.
    `token_order` says what a unit is: a part of the image ("units", the default), or, as in transformers'
    HieraBackbone, places of its rows far apart ("rows", the default for what that class has saved).
    """

    model_type: ClassVar[str] = "hiera"
    _of_pretraining = "decoder_depth decoder_hidden_size decoder_num_heads mask_ratio normalize_pixel_loss"
    ignored_fields: ClassVar[frozenset[str]] = frozenset([*_of_pretraining.split(), "num_hidden_layers", "num_layers"])
    derived_fields: ClassVar[tuple[str, ...]] = ("hidden_size", "stage_names")
    _pairs = ("image_size", "patch_size", "patch_stride", "patch_padding", "query_stride", "masked_unit_size")

    num_channels: ranges.Bands = 3
    image_size: Sides = 224
    patch_size: ranges.PatchSides = 7
    patch_stride: ranges.Square = 4
    patch_padding: ranges.Paddings = 3
    embed_dim: ranges.Width = 96
    embed_dim_multiplier: Annotated[float, Range(1, 8)] = 2.0
    depths: ranges.Depths = (2, 3, 16, 3)
    num_heads: ranges.HeadCounts = (1, 2, 4, 8)
    mlp_ratio: ranges.Ratio = 4.0
    num_query_pool: Annotated[int, Range(0, 7)] = 3
    query_stride: ranges.Square = 2
    masked_unit_size: ranges.Square = 8
    masked_unit_attention: Annotated[tuple[bool, ...], Length(1, 8)] = (True, True, False, False)
    hidden_act: ranges.Activation = "gelu"
    layer_norm_eps: ranges.Epsilon = 1e-6
    layer_norm_init: Annotated[float, Range(0, 10)] = 1.0
    token_order: Literal["units", "rows"] | None = None
    drop_path_rate: Rate = 0.0
    initializer_range: ranges.Deviation = 0.02
    hidden_size = property(lambda self: self.stages[-1].channels)  # of the last stage

    @classmethod
    def settled(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        by_backbone = data.get("token_order") is None and data.get("architectures") == ["HieraBackbone"]
        return {**data, "token_order": "rows"} if by_backbone else data

    def validate(self) -> None:
        self.token_order = self.token_order or "units"
        self.refuse_unequal_lengths("depths", "num_heads", "masked_unit_attention")
        for name in self._pairs:
            height, width = pair(getattr(self, name))
            setattr(self, name, height if height == width else (height, width))
        fits = all(2 * p <= size for p, size in zip(pair(self.patch_padding), pair(self.patch_size), strict=True))
        demand(fits, "hiera: patch_padding", self.patch_padding, f"must be at most half patch_size={self.patch_size}")
        later, unit = len(self.depths) - 1, self.query_stride ** (len(self.depths) - 1)
        rule = (
            f"must be a multiple of {unit}: of query_stride={self.query_stride} to the power of {later}, one a stage"
        )
        demand(self.masked_unit_size % unit == 0, "hiera: masked_unit_size", self.masked_unit_size, rule)
        demand(self.num_query_pool <= later, "hiera: num_query_pool", self.num_query_pool, f"must be at most {later}")
        why = f"; embed_dim={self.embed_dim} grows by embed_dim_multiplier={self.embed_dim_multiplier} a stage"
        self.refuse_undivided_heads(why=why)

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of tokens that the position table belongs to."""
        return patch_grid(self.image_size, self.patch_stride)

    @property
    def stages(self) -> tuple[Stage, ...]:
        levels = [Stage("stem", self.embed_dim, self.patch_stride)]
        for i in range(len(self.depths)):
            stride = levels[-1].stride * (self.query_stride if 0 < i <= self.num_query_pool else 1)
            levels.append(Stage(f"stage{i + 1}", int(self.embed_dim * self.embed_dim_multiplier**i), stride))
        return tuple(levels)

    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        return {**data, **{name: list(pair(data[name])) for name in self._pairs}}


class Stem(nn.Module):
    """Overlapping patches with positions: (B, num_channels, H, W) -> (B, H / stride, W / stride, embed_dim)."""

    def __init__(self, config: HieraConfig):
        super().__init__()
        self.grid = config.grid
        size, stride, width = config.patch_size, config.patch_stride, config.embed_dim
        self.patch = nn.Conv2d(config.num_channels, width, size, stride, config.patch_padding)
        self.positions = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1).contiguous()
        grid = (x.shape[1], x.shape[2])
        return x + resize_positions(self.positions, grid, self.grid).unflatten(1, grid)


class UnitAttention(nn.Module):
    """Attention inside units of `unit` x `unit` places, or in one unit, the whole map (0), from pooled queries.

    (B, H, W, channels) -> (B, H / stride, W / stride, out_channels); what a unit at the edge lacks is not attended to.
    """

    def __init__(self, channels: int, out_channels: int, num_heads: int, stride: int, unit: int):
        super().__init__()
        self.num_heads, self.stride, self.unit = num_heads, stride, unit
        self.qkv = nn.Linear(channels, 3 * out_channels)
        self.attend = DotProductAttention()
        self.proj = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, _ = x.shape
        if self.unit:
            x = windows(repeat_edges(x, self.unit), self.unit).unflatten(2, (self.unit, self.unit))
        q, k, v = self.qkv(x.flatten(0, -4)).split(self.proj.in_features, dim=-1)  # units, rows, columns, channels
        rows, columns = (q := largest(q, self.stride)).shape[1:3]
        q, k, v = (y.flatten(1, 2).unflatten(-1, (self.num_heads, -1)) for y in (q, k, v))
        q, k, v = (y.transpose(1, 2).unflatten(0, (B, -1)) for y in (q, k, v))
        x = self.proj(join_heads(self.attend(q, k, v, blank_bias(H, W, self.unit, like=q) if self.unit else None)))
        if self.unit:
            return unwindow(x, rows, *((side + self.stride - 1) // self.stride for side in (H, W)))
        return x.squeeze(1).unflatten(1, (rows, columns))


class Block(nn.Module):
    """A transformer block, which may change the channels of a map and pool it; maps (B, H, W, C)."""

    def __init__(self, config: HieraConfig, level: int, channels: int, stride: int, unit: int, drop_path: float):
        super().__init__()
        width, self.stride = config.num_features[level + 1], stride
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.proj = nn.Linear(channels, width) if channels != width else None
        self.attn = UnitAttention(channels, width, config.num_heads[level], stride, unit)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), config.hidden_act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = largest(x if self.proj is None else self.proj(normed), self.stride)
        x = x + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class HieraStage(nn.Module):
    """The blocks of one resolution; the first of them may change channels and resolution."""

    def __init__(self, config: HieraConfig, level: int, rates: list[float]):
        super().__init__()
        before, here = config.stages[level : level + 2]
        stride, masked = here.stride // before.stride, config.masked_unit_attention
        unit = config.masked_unit_size // config.query_stride**level
        first = stride * unit if masked[level] or masked[max(level - 1, 0)] else 0
        blocks = [Block(config, level, before.channels, stride, first, rates[0])]
        blocks += [Block(config, level, here.channels, 1, unit if masked[level] else 0, rate) for rate in rates[1:]]
        self.blocks = nn.Sequential(*blocks)
        nested = len(config.depths) - 1 if level == 0 and config.token_order == "rows" else 0
        self.order = partial(rows_as_units, stride=config.query_stride, steps=nested)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.order(x))


def _authors_keys(depths: tuple[int, ...]) -> KeyMap:
    """The names of the authors' checkpoints, and of timm's, which count blocks through all stages."""
    rows = ["patch_embed.proj stem.patch", "pos_embed stem.positions", "hidden_states_norms.stage{} norms.stage{}"]
    for count, (i, j) in enumerate((i, j) for i, depth in enumerate(depths) for j in range(depth)):
        same = "<norm{}|proj|attn.qkv|attn.proj|mlp.fc{}>"
        rows.append(f"blocks.{count}.{same} stages.{i}.blocks.{j}.{same}")
    ignored = "norm.* head.* encoder_norm.* multi_scale_fusion_heads.* decoder_* mask_token".split()
    return KeyMap("\n".join(rows), ignored=ignored, fresh=["hidden_states_norms.*"])


@register
class HieraBackbone(Backbone):
    """Hiera; maps at strides 4 (stem), 4, 8, 16 and 32, layer-normalised but for the stem's, patches with positions.

    Images may have any size: positions are resized, and a unit at an edge holds what there is of it. Hidden states
    are maps (B, H, W, C); attentions, (B, units, heads, N, M) a block, with N pooled places asking M.

    The maps are those of the authors and of transformers' HieraModel, for which the published weights were trained.
    HieraBackbone there does not put the tokens in the order of units, so that the places of its maps are not those of
    the image: token_order="rows" gives its maps, and is the order of the checkpoints that it saved.
    """

    config_class = HieraConfig
    config: HieraConfig
    has_attentions = True
    adaptable = frozenset({"image_size", "token_order"})
    keys = KeyMap(
        """
        embeddings.patch_embeddings.projection             stem.patch
        embeddings.position_embeddings                     stem.positions
        encoder.stages.{}.layers.{}.layernorm_<before|after>   stages.{}.blocks.{}.norm<1|2>
        encoder.stages.{}.layers.{}.proj                   stages.{}.blocks.{}.proj
        encoder.stages.{}.layers.{}.attn.<qkv|proj>        stages.{}.blocks.{}.attn.<qkv|proj>
        encoder.stages.{}.layers.{}.mlp.fc{}               stages.{}.blocks.{}.mlp.fc{}
        hidden_states_norms.stage{}                        norms.stage{}
        """,
        prefixes=["hiera."],
        ignored=["classifier.*", "pooler.*", "decoder.*", "encoder_norm.*", "multiscale_fusion.*", "*_norms.stem.*"],
        fresh=["hidden_states_norms.*"],
    )

    def __init__(self, config: HieraConfig):
        super().__init__(config)
        self.originals = (_authors_keys(config.depths),)
        rates, levels = rising_rates(config.drop_path_rate, config.depths), config.stages[1 : self.num_built]
        self.stem = Stem(config)
        self.stages = nn.ModuleList(HieraStage(config, i, rates[i]) for i in range(len(levels)))
        self.norms = MapNorms({level.name: level.channels for level in levels}, self.out_features, eps=1e-5)
        self.norms["stem"] = nn.Identity()
        spare = zip(pair(config.patch_size), pair(config.patch_padding), strict=True)
        self._least_side = max(1, *(size - 2 * padding for size, padding in spare))
        initialise(self, config.initializer_range)
        for norm in (module for module in self.modules() if isinstance(module, nn.LayerNorm)):
            nn.init.constant_(norm.weight, config.layer_norm_init)
            nn.init.constant_(norm.bias, config.initializer_range)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return self.norms[name](state.permute(0, 3, 1, 2))
