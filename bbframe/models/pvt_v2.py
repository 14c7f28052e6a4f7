"""PVT v2 (Wang et al., "Improved Baselines with Pyramid Vision Transformer", arXiv:2106.13797)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.attention import DotProductAttention, join_heads
from bbframe.layers.convolution import DepthwiseConv
from bbframe.layers.initialise import initialise
from bbframe.layers.pooling import at_least, average_to
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.registry import register
from bbframe.schema import Length, Rate
from bbframe.selection import Stage


@dataclass(kw_only=True)
class PvtV2Config(BackboneConfigMixin):
    """The defaults are PVT v2-B0's; a list holds one value a stage.

    Keys and values come from the map at one `sr_ratios`-th of its sides or, with `linear_attention`, at 7 x 7. Stage 0
    is the stem, as everywhere here; a `config.json` of transformers, which knows none, is read and written so that 0
    is stage1 there.
    """

    model_type: ClassVar[str] = "pvt_v2"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"image_size"})
    attribute_map: ClassVar[Mapping[str, str]] = {"strides": "patch_strides"}  # here the strides of the selected maps
    derived_fields: ClassVar[tuple[str, ...]] = ("num_encoder_blocks", "stage_names")
    stem_in_files: ClassVar[bool] = False

    num_channels: ranges.Bands = 3
    depths: ranges.Depths = (2, 2, 2, 2)
    hidden_sizes: ranges.Widths = (32, 64, 160, 256)
    patch_sizes: Annotated[tuple[ranges.PatchSize, ...], Length(1, 8)] = (7, 3, 3, 3)
    patch_strides: Annotated[tuple[ranges.PatchSize, ...], Length(1, 8)] = (4, 2, 2, 2)
    num_attention_heads: ranges.HeadCounts = (1, 2, 5, 8)
    sr_ratios: Annotated[tuple[ranges.WindowSize, ...], Length(1, 8)] = (8, 4, 2, 1)
    mlp_ratios: Annotated[tuple[ranges.WholeRatio, ...], Length(1, 8)] = (8, 8, 4, 4)
    linear_attention: bool = False
    qkv_bias: bool = True
    hidden_act: ranges.Activation = "gelu"
    layer_norm_eps: ranges.Epsilon = 1e-6
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.0
    initializer_range: ranges.Deviation = 0.02
    num_encoder_blocks = property(lambda self: len(self.depths))  # the stages behind the stem

    def validate(self) -> None:
        lists = "depths hidden_sizes patch_sizes patch_strides num_attention_heads sr_ratios mlp_ratios"
        self.refuse_unequal_lengths(*lists.split())
        self.refuse_undivided_heads("num_attention_heads")

    @property
    def stages(self) -> tuple[Stage, ...]:
        strides = [math.prod(self.patch_strides[: i + 1]) for i in range(len(self.depths))]
        levels = [Stage(f"stage{i + 1}", c, strides[i]) for i, c in enumerate(self.hidden_sizes)]
        return (levels[0]._replace(name="stem"), *levels)

    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        return {**data, "strides": data.pop("patch_strides")}


class OverlappingPatches(nn.Module):
    """What a stage begins with: patches of a map (B, C, H, W), normalised -> (B, H / stride, W / stride, channels)."""

    def __init__(self, config: PvtV2Config, level: int):
        super().__init__()
        channels, width = (config.num_channels, *config.hidden_sizes)[level : level + 2]
        size, stride = config.patch_sizes[level], config.patch_strides[level]
        self.proj = nn.Conv2d(channels, width, size, stride, size // 2)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class ReducedAttention(nn.Module):
    """Attention of a map's places to a smaller version of it; maps (B, H, W, C)."""

    def __init__(self, config: PvtV2Config, level: int):
        super().__init__()
        width, self.num_heads = config.hidden_sizes[level], config.num_attention_heads[level]
        self.linear, ratio = config.linear_attention, 1 if config.linear_attention else config.sr_ratios[level]
        self.q = nn.Linear(width, width, bias=config.qkv_bias)
        self.sr = nn.Conv2d(width, width, ratio, ratio) if self.linear or ratio > 1 else None
        self.norm = nn.Identity() if self.sr is None else nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.act = nn.GELU() if self.linear else nn.Identity()
        self.kv = nn.Linear(width, 2 * width, bias=config.qkv_bias)
        self.attend = DotProductAttention(config.attention_probs_dropout_prob)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        q = self.q(x).flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if self.sr is not None:
            x = x.permute(0, 3, 1, 2)
            x = average_to(7, x) if self.linear else at_least(self.sr.stride[0], x)
            x = self.act(self.norm(self.sr(x).permute(0, 2, 3, 1)))
        k, v = self.kv(x).flatten(1, 2).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.dropout(self.proj(join_heads(self.attend(q, k, v)))).unflatten(1, (H, W))


class ConvMlp(nn.Module):
    """A perceptron whose activation follows a depth-wise 3x3 convolution; maps (B, H, W, C)."""

    def __init__(self, config: PvtV2Config, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.relu = nn.ReLU() if config.linear_attention else nn.Identity()
        self.dwconv = DepthwiseConv(hidden, 3, act=activation(config.hidden_act))
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dwconv(self.relu(self.fc1(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.dropout(self.fc2(self.dropout(x)))


class Block(nn.Module):
    """A transformer block; maps (B, H, W, C)."""

    def __init__(self, config: PvtV2Config, level: int, drop_path: float):
        super().__init__()
        width = config.hidden_sizes[level]
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = ReducedAttention(config, level)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = ConvMlp(config, width, int(width * config.mlp_ratios[level]))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PvtV2Stage(nn.Module):
    """The blocks of one resolution and a norm, behind patches in all but the first stage; maps (B, H, W, C)."""

    def __init__(self, config: PvtV2Config, level: int, rates: list[float]):
        super().__init__()
        self.downsample = OverlappingPatches(config, level) if level else None
        self.blocks = nn.Sequential(*(Block(config, level, rate) for rate in rates))
        self.norm = nn.LayerNorm(config.hidden_sizes[level], eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x.permute(0, 3, 1, 2))
        return self.norm(self.blocks(x))


def _original(first: str, later: str, block: str, conv: str, norm: str) -> KeyMap:
    """The table for given names of patches, blocks, convolutions and norms; the others are ours."""
    same, ours = "<norm{}|attn.q|attn.kv|attn.sr|attn.norm|attn.proj|mlp.fc{}>", "stages.{}.blocks.{}"
    rows = f"{first}.<proj|norm> stem.<proj|norm>\n{later}.<proj|norm> stages.{{+1}}.downsample.<proj|norm>\n"
    rows += f"{block}.{same} {ours}.{same}\n{block}.mlp.{conv} {ours}.mlp.dwconv\n{norm} stages.{{}}.norm"
    return KeyMap(rows, ignored=["head.*"])


@register
class PvtV2Backbone(Backbone):
    """PVT v2; maps at strides 4 (stem), 4, 8, 16 and 32. The stem's are the first patches, of which transformers has
    no map. Hidden states are maps (B, H, W, C); attentions, (B, heads, N, M) a block, with N places asking M."""

    config_class = PvtV2Config
    config: PvtV2Config
    has_attentions = True
    keys = KeyMap(
        """
        encoder.layers.0.patch_embedding.<proj|layer_norm>          stem.<proj|norm>
        encoder.layers.{+1}.patch_embedding.<proj|layer_norm>       stages.{+1}.downsample.<proj|norm>
        encoder.layers.{}.blocks.{}.layer_norm_{}                   stages.{}.blocks.{}.norm{}
        encoder.layers.{}.blocks.{}.attention.query                 stages.{}.blocks.{}.attn.q
        encoder.layers.{}.blocks.{}.attention.(key|value)           stages.{}.blocks.{}.attn.kv
        encoder.layers.{}.blocks.{}.attention.spatial_reduction     stages.{}.blocks.{}.attn.sr
        encoder.layers.{}.blocks.{}.attention.<layer_norm|proj>     stages.{}.blocks.{}.attn.<norm|proj>
        encoder.layers.{}.blocks.{}.mlp.dense{}                     stages.{}.blocks.{}.mlp.fc{}
        encoder.layers.{}.blocks.{}.mlp.dwconv.dwconv               stages.{}.blocks.{}.mlp.dwconv
        encoder.layers.{}.layer_norm                                stages.{}.norm
        """,
        prefixes=["pvt_v2."],
        ignored=["classifier.*"],
    )
    originals = (  # of the authors, and of timm
        _original("patch_embed1", "patch_embed{+2}", "block{+1}.{}", "dwconv.dwconv", "norm{+1}"),
        _original("patch_embed", "stages.{+1}.downsample", "stages.{}.blocks.{}", "dwconv", "stages.{}.norm"),
    )

    def __init__(self, config: PvtV2Config):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = OverlappingPatches(config, 0)
        self.stages = nn.ModuleList(PvtV2Stage(config, i, rates[i]) for i in range(self.num_built - 1))
        initialise(self, config.initializer_range)
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            fan_out = conv.out_channels // conv.groups * math.prod(conv.kernel_size)
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return state.permute(0, 3, 1, 2)
