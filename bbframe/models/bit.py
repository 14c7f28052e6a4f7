"""Big Transfer (Kolesnikov et al., "General Visual Representation Learning", arXiv:1912.11370)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import SamePad
from bbframe.layers.initialise import initialise_convolutions
from bbframe.layers.norm import GroupNorm
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.registry import register
from bbframe.schema import Name, Range, Rate
from bbframe.selection import Stage


@dataclass(kw_only=True)
class BitConfig(BackboneConfigMixin):
    """`depths` blocks a stage, `hidden_sizes` channels after each; the defaults are BiT-M-R50x1's.

    `width_factor` multiplies all channels, those of the stem too. `output_stride` keeps the maps from getting coarser:
    later stages step by 1, and bottlenecks dilate their kernels instead. `global_padding` "SAME" pads a convolution as
    TensorFlow does, so that a side of n gives ceil(n / stride); `embedding_dynamic_padding` does so for the stem's
    pooling.
    """

    model_type: ClassVar[str] = "bit"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"conv_layer", "stem_type"})

    num_channels: ranges.Bands = 3
    embedding_size: ranges.Width = 64
    hidden_sizes: ranges.Widths = (256, 512, 1024, 2048)
    depths: ranges.Depths = (3, 4, 6, 3)
    width_factor: Annotated[int, Range(1, 16)] = 1
    layer_type: Literal["preactivation", "bottleneck"] = "preactivation"
    hidden_act: ranges.Activation = "relu"
    global_padding: Name | None = None
    embedding_dynamic_padding: bool = False
    num_groups: Annotated[int, Range(1, 1024)] = 32
    output_stride: Annotated[int, Range(4, 1024, "pixels")] = 32
    drop_path_rate: Rate = 0.0

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "hidden_sizes")
        self.global_padding = self.global_padding and self.global_padding.upper()
        if self.global_padding not in (None, "SAME"):
            why = "the branches of a block could not be added" if self.global_padding == "VALID" else "not known"
            raise ValueError(f"bit: global_padding={self.global_padding!r}: {why}; choose null or 'SAME'")
        if self.output_stride & (self.output_stride - 1):
            raise ValueError(f"bit: output_stride={self.output_stride} must be 4, 8, 16, 32 or a higher power of 2")
        widths = [stage.channels for stage in self.stages]
        widths += [rounded(width / 4) for width in widths[1:]]
        if any(width % self.num_groups for width in widths):
            raise ValueError(f"bit: num_groups={self.num_groups} must divide the channels of all norms, {widths}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        levels = [
            Stage(f"stage{i + 1}", rounded(size * self.width_factor), min(4 * 2**i, self.output_stride))
            for i, size in enumerate(self.hidden_sizes)
        ]
        return (Stage("stem", self.embedding_size * self.width_factor, 4), *levels)


def rounded(width: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class StandardisedConv(nn.Conv2d):
    """Convolution by weights of mean 0 and variance 1 in each output channel (Qiao et al., arXiv:1903.10520)."""

    def __init__(self, config: BitConfig, channels: int, out: int, size: int, stride: int = 1, dilation: int = 1):
        same = config.global_padding == "SAME" and size > stride > 1
        super().__init__(channels, out, size, stride, 0 if same else size // 2 * dilation, dilation, bias=False)
        self.pad = SamePad(size, stride) if same else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.standardised(), None, self.stride, self.padding, self.dilation)

    def standardised(self) -> Tensor:
        """The kernels that maps are convolved with."""
        rows = self.weight.flatten(1)  # compilers write rows faster than kernels
        return F.layer_norm(rows, rows.shape[1:], eps=1e-8).view_as(self.weight)


class NormAct(GroupNorm):
    """Group normalisation and activation."""

    def __init__(self, config: BitConfig, channels: int):
        super().__init__(config.num_groups, channels)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Border(nn.Module):
    """One place of zeros around a map (B, C, H, W); added in five dimensions, for in four ONNX Runtime makes it a
    part of the pooling behind, whose own border is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x.permute(0, 2, 3, 1)[:, None], (0, 0, 1, 1, 1, 1)).squeeze(1).permute(0, 3, 1, 2)


class Stem(nn.Module):
    """(B, num_channels, H, W) -> (B, C, H / 4, W / 4)."""

    def __init__(self, config: BitConfig, channels: int):
        super().__init__()
        bottleneck, same = config.layer_type == "bottleneck", config.global_padding == "SAME"
        self.conv = StandardisedConv(config, config.num_channels, channels, 7, stride=2)
        self.border = nn.Identity() if same else Border()  # before the norm: so were the checkpoints made
        self.norm = NormAct(config, channels) if bottleneck else nn.Identity()
        self.pad = SamePad(3, stride=2) if config.embedding_dynamic_padding else nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.pad(self.norm(self.border(self.conv(x)))))


class Shape(NamedTuple):
    """What a block does to the shape of a map; `first` is the one of the first block of a stage."""

    channels: int
    inner: int  # the channels between the convolutions
    out: int
    stride: int
    dilation: int
    first: bool


def projection(config: BitConfig, shape: Shape, **norm: nn.Module) -> nn.Sequential:
    """What brings the input of the first block of a stage to the shape of its output; nothing in the others."""
    if not shape.first:
        return nn.Sequential()
    conv = StandardisedConv(config, shape.channels, shape.out, 1, shape.stride)
    return nn.Sequential(OrderedDict(conv=conv, **norm))


class Preactivation(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind a norm (He et al., arXiv:1603.05027); maps (B, C, H, W)."""

    def __init__(self, config: BitConfig, shape: Shape, drop_path: float):
        super().__init__()
        self.norm1 = NormAct(config, shape.channels)
        self.conv1 = StandardisedConv(config, shape.channels, shape.inner, 1)
        self.norm2 = NormAct(config, shape.inner)
        self.conv2 = StandardisedConv(config, shape.inner, shape.inner, 3, shape.stride)  # the Hub's: never dilated
        self.norm3 = NormAct(config, shape.inner)
        self.conv3 = StandardisedConv(config, shape.inner, shape.out, 1)
        self.shortcut = projection(config, shape)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm1(x)
        residual = self.shortcut(before) if len(self.shortcut) else x
        x = self.conv2(self.norm2(self.conv1(before)))
        return residual + self.drop_path(self.conv3(self.norm3(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each before a norm; the last activation follows the sum; maps (B, C, H, W)."""

    def __init__(self, config: BitConfig, shape: Shape, drop_path: float):
        super().__init__()
        self.conv1 = StandardisedConv(config, shape.channels, shape.inner, 1)
        self.norm1 = NormAct(config, shape.inner)
        self.conv2 = StandardisedConv(config, shape.inner, shape.inner, 3, shape.stride, shape.dilation)
        self.norm2 = NormAct(config, shape.inner)
        self.conv3 = StandardisedConv(config, shape.inner, shape.out, 1)
        self.norm3 = GroupNorm(config.num_groups, shape.out)
        self.shortcut = projection(config, shape, norm=GroupNorm(config.num_groups, shape.out))
        self.drop_path = DropPath(drop_path)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        x = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.act(residual + self.drop_path(self.norm3(self.conv3(x))))


class BitStage(nn.Module):
    """The blocks of one resolution; the first of them changes stride and channels."""

    def __init__(self, config: BitConfig, index: int, rates: list[float]):
        super().__init__()
        before, level = config.stages[index : index + 2]
        dilation = 4 * 2**index // level.stride  # what the strides up to here lack
        block = Preactivation if config.layer_type == "preactivation" else Bottleneck
        inner, out, stride = rounded(level.channels / 4), level.channels, level.stride // before.stride
        first = Shape(before.channels, inner, out, stride, 1 if dilation <= 2 else 2, first=True)
        rest = Shape(out, inner, out, 1, dilation, first=False)
        self.blocks = nn.Sequential(*[block(config, rest if i else first, rate) for i, rate in enumerate(rates)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


@register
class BitBackbone(Backbone):
    """BiT; maps at strides 4 (stem), 4, 8, 16 and 32, none above `output_stride`. Hidden states are these maps.

    Adapted to other input channels, a filter of the stem keeps its pattern, but for its scale: that is standardised.
    """

    config_class = BitConfig
    keys = KeyMap(
        """
        embedder.convolution                              stem.conv
        embedder.norm                                     stem.norm
        encoder.stages.{}.layers.{}.norm{}                stages.{}.blocks.{}.norm{}
        encoder.stages.{}.layers.{}.conv{}                stages.{}.blocks.{}.conv{}
        encoder.stages.{}.layers.{}.downsample.conv       stages.{}.blocks.{}.shortcut.conv
        encoder.stages.{}.layers.{}.downsample.norm       stages.{}.blocks.{}.shortcut.norm
        norm                                              norm
        """,
        saved_prefix="bit.",
        ignored=["classifier.*"],
    )

    def __init__(self, config: BitConfig):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = Stem(config, config.stages[0].channels)
        self.stages = nn.ModuleList(BitStage(config, i, rates[i]) for i in range(self.num_built - 1))
        self.norm: nn.Module = nn.Identity()
        if config.layer_type == "preactivation":  # a classifier's: no map passes it, but the Hub's checkpoints hold it
            self.norm = GroupNorm(config.num_groups, config.stages[-1].channels).requires_grad_(False)
        initialise_convolutions(self)
