"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import DepthwiseConv
from bbframe.layers.initialise import initialise
from bbframe.layers.norm import LayerNorm2d, MapNorms
from bbframe.layers.residual import DropPath, LayerScale, rising_rates
from bbframe.registry import register
from bbframe.schema import Rate
from bbframe.selection import Stage


@dataclass(kw_only=True)
class ConvNextTowerFields(BackboneConfigMixin):
    """What every ConvNeXt configures: `depths` blocks a stage of `hidden_sizes` channels."""

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"image_size"})

    num_channels: ranges.Bands = 3
    hidden_sizes: ranges.Widths = (96, 192, 384, 768)
    depths: ranges.Depths = (3, 3, 9, 3)
    hidden_act: ranges.Activation = "gelu"
    initializer_range: ranges.Deviation = 0.02
    drop_path_rate: Rate = 0.0

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "hidden_sizes")

    @property
    def stem_patch(self) -> int:
        """The side of the stem's patches, in pixels."""
        return 4

    @property
    def norm_eps(self) -> float:
        """The eps of every norm."""
        return 1e-6

    @property
    def stages(self) -> tuple[Stage, ...]:
        levels = [Stage(f"stage{i + 1}", c, self.stem_patch * 2**i) for i, c in enumerate(self.hidden_sizes)]
        return (Stage("stem", self.hidden_sizes[0], self.stem_patch), *levels)


@dataclass(kw_only=True)
class ConvNextFields(ConvNextTowerFields):
    """What both generations of the supervised ConvNeXt configure."""

    # this eps belongs to the classifier's norm
    ignored_fields: ClassVar[frozenset[str]] = ConvNextTowerFields.ignored_fields | {"layer_norm_eps"}
    derived_fields: ClassVar[tuple[str, ...]] = ("num_stages", "stage_names")

    patch_size: ranges.PatchSize = 4

    @property
    def num_stages(self) -> int:
        """The number of stages behind the stem."""
        return len(self.depths)

    @property
    def stem_patch(self) -> int:
        return self.patch_size


@dataclass(kw_only=True)
class ConvNextConfig(ConvNextFields):
    """The defaults are ConvNeXt-T's. Layer scale starts with `layer_scale_init_value`; at 0 there is none."""

    model_type: ClassVar[str] = "convnext"

    layer_scale_init_value: ranges.LayerScale = 1e-6


class Block(nn.Module):
    """Depth-wise 7x7 convolution, then a perceptron with layer scale; maps (B, C, H, W)."""

    def __init__(self, config: Any, channels: int, drop_path: float):
        super().__init__()
        self.conv = DepthwiseConv(channels, 7)
        self.norm = nn.LayerNorm(channels, eps=config.norm_eps)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.act = activation(config.hidden_act)
        self.fc2 = nn.Linear(4 * channels, channels)
        scale = config.layer_scale_init_value
        self.scale = LayerScale(channels, scale) if scale > 0 else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        x = self.scale(self.fc2(self.act(self.fc1(x))))
        return residual + self.drop_path(x.permute(0, 3, 1, 2))


class ConvNextStage(nn.Module):
    """Blocks of one resolution, behind a norm and a 2x2 convolution of stride 2 in all but the first stage."""

    def __init__(self, channels: int, out_channels: int, stride: int, eps: float, blocks: list[nn.Module]):
        super().__init__()
        step = (LayerNorm2d(channels, eps=eps), nn.Conv2d(channels, out_channels, 2, stride)) if stride > 1 else ()
        self.downsample = nn.Sequential(*step)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


# what the checkpoints of both generations hold
NAMES = """
        embeddings.patch_embeddings                                stem.0
        embeddings.layernorm                                       stem.1
        encoder.stages.{}.downsampling_layer.{}                    stages.{}.downsample.{}
        encoder.stages.{}.layers.{}.dwconv                         stages.{}.blocks.{}.conv
        encoder.stages.{}.layers.{}.layernorm                      stages.{}.blocks.{}.norm
        encoder.stages.{}.layers.{}.pwconv1                        stages.{}.blocks.{}.fc1
        encoder.stages.{}.layers.{}.pwconv2                        stages.{}.blocks.{}.fc2
        hidden_states_norms.stem                                   norms.stem
        hidden_states_norms.stage{}                                norms.stage{}"""

TIMM_NAMES = """
        stem.{}                                                    stem.{}
        stages.{}.downsample.{}                                    stages.{}.downsample.{}
        stages.{}.blocks.{}.conv_dw                                stages.{}.blocks.{}.conv
        stages.{}.blocks.{}.norm                                   stages.{}.blocks.{}.norm
        stages.{}.blocks.{}.mlp.fc{}                               stages.{}.blocks.{}.fc{}
        hidden_states_norms.stem                                   norms.stem
        hidden_states_norms.stage{}                                norms.stage{}"""


class ConvNextTower(Backbone):
    """The stem and the stages that every ConvNeXt has."""

    needs_a_cell = True
    block_class: ClassVar[type[nn.Module]]  # made of a config, the channels and the drop rate

    def __init__(self, config: ConvNextTowerFields):
        super().__init__(config)
        levels = config.stages[: self.num_built]
        rates = rising_rates(config.drop_path_rate, config.depths)
        width, patch, eps = config.hidden_sizes[0], config.stem_patch, config.norm_eps
        self.stem = nn.Sequential(nn.Conv2d(config.num_channels, width, patch, patch), LayerNorm2d(width, eps=eps))
        self.stages = nn.ModuleList()
        for before, level, stage_rates in zip(levels, levels[1:], rates, strict=False):
            blocks = [self.block_class(config, level.channels, rate) for rate in stage_rates]
            stride = level.stride // before.stride
            self.stages.append(ConvNextStage(before.channels, level.channels, stride, eps, blocks))
        initialise(self, config.initializer_range)

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        sizes = [size for size in weight.shape if size > 1]
        if name.startswith("stages.") and weight.shape != shape and sizes == [size for size in shape if size > 1]:
            return weight.reshape(shape), f"{list(weight.shape)} written as {list(shape)}"  # timm's 1 x 1 convolutions
        return super().adapt_weight(name, weight, shape, made_with)


@register
class ConvNextBackbone(ConvNextTower):
    """ConvNeXt; maps at strides 4 (stem), 4, 8, 16 and 32, each layer-normalised. Hidden states are maps (B, C, H, W)
    without that norm."""

    config_class: ClassVar[type[ConvNextFields]] = ConvNextConfig
    block_class: ClassVar[type[nn.Module]] = Block
    keys = KeyMap(
        NAMES
        + """
        encoder.stages.{}.layers.{}.layer_scale_parameter          stages.{}.blocks.{}.scale.weight
        """,
        prefixes=["convnext."],
        ignored=["classifier.*", "layernorm.*"],
        fresh=["hidden_states_norms.*"],
    )
    _timm_keys = KeyMap(
        TIMM_NAMES
        + """
        stages.{}.blocks.{}.gamma                                  stages.{}.blocks.{}.scale.weight
        """,
        ignored=["head.*"],
        fresh=["hidden_states_norms.*"],
    )
    originals: Sequence[KeyMap] = (_timm_keys,)

    def __init__(self, config: ConvNextFields):
        super().__init__(config)
        levels = config.stages[: self.num_built]
        self.norms = MapNorms({s.name: s.channels for s in levels}, self.out_features, eps=config.norm_eps)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return self.norms[name](state)
