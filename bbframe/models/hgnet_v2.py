"""PP-HGNetV2 (PaddlePaddle, 2023), the backbone of D-FINE (Peng et al., arXiv:2410.13842)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.hub.detector_hosts import detector_hosts
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import ConvNorm, ConvNormAct
from bbframe.layers.initialise import initialise
from bbframe.registry import register
from bbframe.schema import Length, Range
from bbframe.selection import Stage

Widths = Annotated[tuple[Annotated[int, Range(2, 32_768, "channels")], ...], Length(1, 8)]
Kernels = Annotated[tuple[Annotated[int, Range(1, 31, "places")], ...], Length(1, 8)]
Strides = tuple[Annotated[int, Range(1, 8, "places")], ...]


@dataclass(kw_only=True)
class HGNetV2Config(BackboneConfigMixin):
    """One value a stage in every field that begins with `stage`; the defaults are HGNetV2-B4's.

    `stem_channels` are those of the images, which `num_channels` overrides, those inside the stem and those behind
    it. `stem_strides` belong to its five convolutions. `stage_numb_of_layers` counts the convolutions of a block.
    `use_learnable_affine_block` puts a learned factor and offset behind every activation. `hidden_act` is the stem's;
    the stages have ReLU. What files call `depths`, `hidden_sizes` and `embedding_size` changes no map.
    """

    model_type: ClassVar[str] = "hgnet_v2"
    ignored_fields: ClassVar[frozenset[str]] = frozenset(
        "layer_type downsample_in_bottleneck downsample_in_first_stage arch return_idx freeze_stem_only freeze_at "
        "freeze_norm lr_mult_list".split()
    )
    derived_fields: ClassVar[tuple[str, ...]] = ("depths", "embedding_size", "hidden_sizes", "stage_names")

    num_channels: ranges.Bands = 3
    stem_channels: Annotated[tuple[ranges.Width, ...], Length(3, 3)] = (3, 32, 48)
    stem_strides: Annotated[Strides, Length(5, 5)] = (2, 1, 1, 2, 1)
    stage_in_channels: ranges.Widths = (48, 128, 512, 1024)
    stage_mid_channels: ranges.Widths = (48, 96, 192, 384)
    stage_out_channels: Widths = (128, 512, 1024, 2048)
    stage_num_blocks: ranges.Depths = (1, 1, 3, 1)
    stage_numb_of_layers: ranges.Depths = (6, 6, 6, 6)
    stage_downsample: Annotated[tuple[bool, ...], Length(1, 8)] = (False, True, True, True)
    stage_downsample_strides: Annotated[Strides, Length(1, 8)] = (2, 2, 2, 2)
    stage_light_block: Annotated[tuple[bool, ...], Length(1, 8)] = (False, False, True, True)
    stage_kernel_size: Kernels = (3, 3, 5, 5)
    hidden_act: ranges.Activation = "relu"
    use_learnable_affine_block: bool = False
    initializer_range: ranges.Deviation = 0.02

    # by which transformers counts stages and channels
    depths, hidden_sizes = property(attrgetter("stage_num_blocks")), property(attrgetter("stage_out_channels"))
    embedding_size = property(lambda self: self.stem_channels[2])

    def validate(self) -> None:
        count = len(self.stage_in_channels)
        self.stage_downsample_strides = self.stage_downsample_strides[:count]  # files of fewer stages keep all four
        self.refuse_unequal_lengths(*(name for name in self.field_names() if name.startswith("stage_")))
        self.stem_channels = (self.num_channels, *self.stem_channels[1:])
        before = (self.stem_channels[2], *self.stage_out_channels[:-1])
        for wrong, name, rule in (
            (self.stem_channels[1] < 2, "stem_channels", "have 2 or more in the middle"),
            (self.stem_strides[1:3] != (1, 1), "stem_strides", "be 1 in the second and the third place"),
            (self.stage_in_channels != before, "stage_in_channels", f"be the channels before the stages, {before}"),
            (min(size % 2 for size in self.stage_kernel_size) == 0, "stage_kernel_size", "be odd numbers"),
        ):
            if wrong:
                raise ValueError(f"hgnet_v2: {name}={list(getattr(self, name))} must {rule}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        levels = [Stage("stem", self.stem_channels[2], prod(self.stem_strides))]
        for i, channels in enumerate(self.stage_out_channels):
            step = self.stage_downsample_strides[i] if self.stage_downsample[i] else 1
            levels.append(Stage(f"stage{i + 1}", channels, levels[-1].stride * step))
        return tuple(levels)


class LearnableAffine(nn.Module):
    """One learned factor and one offset for a whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, self.scale, x)


class AffineConv(ConvNormAct):
    """Convolution, batch normalisation, activation and, where the config says so, the learned factor and offset;
    `step` are the stride and the groups."""

    def __init__(self, config: HGNetV2Config, channels: int, out: int, size: int, act: str = "relu", *step: int):
        super().__init__(channels, out, size, activation(act), *step)
        self.lab = LearnableAffine() if config.use_learnable_affine_block else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.lab(super().forward(x))


class LightConv(nn.Sequential):
    """A 1x1 convolution, then a depthwise one with its activation."""

    def __init__(self, config: HGNetV2Config, channels: int, out: int, size: int):
        depthwise = AffineConv(config, out, out, size, "relu", 1, out)
        super().__init__(OrderedDict(conv1=ConvNorm(channels, out, 1), conv2=depthwise))


class Stem(nn.Module):
    """Maxima beside 2x2 convolutions, with zeros at the far borders: (B, bands, H, W) -> (B, C, H / 4, W / 4)."""

    def __init__(self, config: HGNetV2Config):
        super().__init__()
        (bands, inner, out), strides, act = config.stem_channels, config.stem_strides, config.hidden_act
        self.stem1 = AffineConv(config, bands, inner, 3, act, strides[0])
        self.stem2a = AffineConv(config, inner, inner // 2, 2, act, strides[1])
        self.stem2b = AffineConv(config, inner // 2, inner, 2, act, strides[2])
        self.stem3 = AffineConv(config, 2 * inner, inner, 3, act, strides[3])
        self.stem4 = AffineConv(config, inner, out, 1, act, strides[4])
        self.pool = nn.MaxPool2d(2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        convolved = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat([self.pool(x), convolved], dim=1)))


class Block(nn.Module):
    """Convolutions in a row, whose maps are joined and aggregated; all but the first of a stage add their input."""

    def __init__(self, config: HGNetV2Config, stage: int, first: bool):
        super().__init__()
        width, out = config.stage_mid_channels[stage], config.stage_out_channels[stage]
        channels, count = config.stage_in_channels[stage] if first else out, config.stage_numb_of_layers[stage]
        conv = LightConv if config.stage_light_block[stage] else AffineConv
        kernel = config.stage_kernel_size[stage]
        self.residual = not first
        self.layers = nn.ModuleList(conv(config, width if i else channels, width, kernel) for i in range(count))
        self.aggregation = nn.Sequential(
            AffineConv(config, channels + count * width, out // 2, 1), AffineConv(config, out // 2, out, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        aggregated = self.aggregation(torch.cat(maps, dim=1))
        return aggregated + x if self.residual else aggregated


class HGNetV2Stage(nn.Sequential):
    """The blocks of one resolution, behind a depthwise convolution where the stage steps down."""

    def __init__(self, config: HGNetV2Config, stage: int):
        channels, stride = config.stage_in_channels[stage], config.stage_downsample_strides[stage]
        step = ConvNorm(channels, channels, 3, stride, channels) if config.stage_downsample[stage] else nn.Identity()
        blocks = [Block(config, stage, i == 0) for i in range(config.stage_num_blocks[stage])]
        super().__init__(OrderedDict(downsample=step, blocks=nn.Sequential(*blocks)))


def _names(stem: str, stages: str, conv: str, norm: str) -> str:
    """A key table: our modules have the published names but for these four."""
    places = [(f"{stem}.{part}", f"stem.{part}") for part in ("stem1", "stem2a", "stem2b", "stem3", "stem4")]
    for part in ("downsample", "blocks.{}.layers.{}", "blocks.{}.layers.{}.conv{}", "blocks.{}.aggregation.{}"):
        places.append((f"{stages}.{{}}.{part}", f"stages.{{}}.{part}"))
    parts = ((conv, "conv"), (norm, "norm"), ("lab", "lab"))
    return "\n".join(f"{theirs}.{name} {ours}.{part}" for theirs, ours in places for name, part in parts)


@register
class HGNetV2Backbone(Backbone):
    """HGNetV2; maps at strides 4 (stem), 4, 8, 16 and 32."""

    config_class = HGNetV2Config
    keys = KeyMap(_names("embedder", "encoder.stages", "convolution", "normalization"), ignored=["fc.*"])
    # of timm, and of the authors of D-FINE
    originals = (KeyMap(_names("stem", "stages", "conv", "bn"), ignored=["head.*", "last_conv.*", "fc.*"]),)
    hosts = detector_hosts(keys, HGNetV2Config)

    def __init__(self, config: HGNetV2Config):
        super().__init__(config)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(HGNetV2Stage(config, stage) for stage in range(self.num_built - 1))
        initialise(self, config.initializer_range)
