"""ResNet (He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.hub.detector_hosts import detector_hosts
from bbframe.keymap import Host, KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import ConvNorm
from bbframe.layers.initialise import initialise_convolutions
from bbframe.registry import register
from bbframe.selection import Stage


@dataclass(kw_only=True)
class ResNetConfig(BackboneConfigMixin):
    """`depths` blocks a stage, `hidden_sizes` channels after each; the defaults are ResNet-50's.

    `downsample_in_bottleneck` puts the stride in a bottleneck's first convolution instead of its second;
    `downsample_in_first_stage` halves the map in stage 1 too.
    """

    model_type: ClassVar[str] = "resnet"

    num_channels: ranges.Bands = 3
    embedding_size: ranges.Width = 64
    hidden_sizes: ranges.Widths = (256, 512, 1024, 2048)
    depths: ranges.Depths = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: ranges.Activation = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "hidden_sizes")

    @property
    def stages(self) -> tuple[Stage, ...]:
        first = 8 if self.downsample_in_first_stage else 4
        levels = [Stage(f"stage{i + 1}", c, first * 2**i) for i, c in enumerate(self.hidden_sizes)]
        return (Stage("stem", self.embedding_size, 4), *levels)


class Stem(ConvNorm):
    """(B, num_channels, H, W) -> (B, C, H / 4, W / 4)."""

    def __init__(self, config: ResNetConfig):
        super().__init__(config.num_channels, config.embedding_size, 7, stride=2)
        self.act = activation(config.hidden_act)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.act(super().forward(x)))


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 at a quarter of the channels."""

    def __init__(self, config: ResNetConfig, channels: int, out_channels: int, stride: int, shortcut: nn.Module):
        super().__init__()
        if config.layer_type == "basic":
            self.convs = nn.ModuleList(
                [ConvNorm(channels, out_channels, 3, stride), ConvNorm(out_channels, out_channels, 3)]
            )
        else:
            inner = out_channels // 4
            first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            self.convs = nn.ModuleList(
                [
                    ConvNorm(channels, inner, 1, first),
                    ConvNorm(inner, inner, 3, second),
                    ConvNorm(inner, out_channels, 1),
                ]
            )
        self.shortcut = shortcut
        self.relu = nn.ReLU()  # hidden_act follows the stem and the sums: so were the checkpoints made
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        for conv in self.convs[:-1]:
            x = self.relu(conv(x))
        return self.act(self.convs[-1](x) + residual)


class ResNetStage(nn.Module):
    """The blocks of one resolution; the first of them changes stride and channels, and has the `shortcut`."""

    def __init__(
        self, config: ResNetConfig, channels: int, out_channels: int, depth: int, stride: int, shortcut: nn.Module
    ):
        super().__init__()
        first = Block(config, channels, out_channels, stride, shortcut)
        rest = [Block(config, out_channels, out_channels, 1, nn.Identity()) for _ in range(depth - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


@register
class ResNetBackbone(Backbone):
    """ResNet; maps at strides 4 (stem), 4, 8, 16 and 32."""

    config_class: ClassVar[type[ResNetConfig]] = ResNetConfig
    stem_class: ClassVar[type[nn.Module]] = Stem  # made of a config
    keys = KeyMap(
        """
        embedder.embedder.convolution                        stem.conv
        embedder.embedder.normalization                      stem.norm
        encoder.stages.{}.layers.{}.layer.{}.convolution     stages.{}.blocks.{}.convs.{}.conv
        encoder.stages.{}.layers.{}.layer.{}.normalization   stages.{}.blocks.{}.convs.{}.norm
        encoder.stages.{}.layers.{}.shortcut.convolution     stages.{}.blocks.{}.shortcut.conv
        encoder.stages.{}.layers.{}.shortcut.normalization   stages.{}.blocks.{}.shortcut.norm
        """,
        prefixes=["resnet."],
        ignored=["classifier.*"],
    )
    _torchvision_keys = KeyMap(
        """
        conv1                         stem.conv
        bn1                           stem.norm
        layer{+1}.{}.conv{+1}         stages.{}.blocks.{}.convs.{}.conv
        layer{+1}.{}.bn{+1}           stages.{}.blocks.{}.convs.{}.norm
        layer{+1}.{}.downsample.0     stages.{}.blocks.{}.shortcut.conv
        layer{+1}.{}.downsample.1     stages.{}.blocks.{}.shortcut.norm
        """,
        ignored=["fc.*"],
    )
    originals: Sequence[KeyMap] = (_torchvision_keys,)  # of torchvision, and of timm
    hosts: ClassVar[Mapping[str, Host]] = detector_hosts(keys, ResNetConfig)

    def __init__(self, config: ResNetConfig):
        super().__init__(config)
        levels = config.stages[: self.num_built]
        self.stem = self.stem_class(config)
        self.stages = nn.ModuleList()
        for before, level, depth in zip(levels, levels[1:], config.depths, strict=False):
            sizes, stride = (before.channels, level.channels), level.stride // before.stride
            self.stages.append(ResNetStage(config, *sizes, depth, stride, self.shortcut(*sizes, stride)))
        initialise_convolutions(self)

    def shortcut(self, channels: int, out_channels: int, stride: int) -> nn.Module:
        """What carries a map past the first block of a stage: a 1x1 convolution where it changes size."""
        same = stride == 1 and channels == out_channels
        return nn.Identity() if same else ConvNorm(channels, out_channels, 1, stride)
