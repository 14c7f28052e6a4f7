"""ConvNeXt V2 (Woo et al., "Co-designing and Scaling ConvNets with Masked Autoencoders", arXiv:2301.00808)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bbframe.auto import Backbone, register
from bbframe.backbone import BackboneConfigMixin, Stage
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.drop_path import DropPath, rising_rates
from bbframe.layers.norm import LayerNorm2d, MapNorms


@dataclass(kw_only=True)
class ConvNextV2Config(BackboneConfigMixin):
    """`depths` blocks a stage of `hidden_sizes` channels; the defaults are ConvNeXt V2-T's."""

    model_type: ClassVar[str] = "convnextv2"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"image_size", "layer_norm_eps"})
    derived_fields: ClassVar[tuple[str, ...]] = ("num_stages", "stage_names")

    num_channels: int = 3
    patch_size: int = 4
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    drop_path_rate: float = 0.0

    def validate(self) -> None:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"convnextv2: depths={list(self.depths)} and hidden_sizes={list(self.hidden_sizes)} "
                "must be equally long"
            )

    @property
    def num_stages(self) -> int:
        """The number of stages behind the stem."""
        return len(self.depths)

    @property
    def stages(self) -> tuple[Stage, ...]:
        levels = [Stage(f"stage{i + 1}", c, self.patch_size * 2**i) for i, c in enumerate(self.hidden_sizes)]
        return (Stage("stem", self.hidden_sizes[0], self.patch_size), *levels)


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its share of the map's energy (section 3.3), over maps (B, H, W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        return self.weight * (x * share) + self.bias + x


class Block(nn.Module):
    """Depth-wise 7x7 convolution, then a perceptron with response normalisation; maps (B, C, H, W)."""

    def __init__(self, channels: int, act: str, drop_path: float):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.act = activation(act)
        self.grn = GlobalResponseNorm(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        x = self.fc2(self.grn(self.act(self.fc1(x))))
        return residual + self.drop_path(x.permute(0, 3, 1, 2))


class ConvNextV2Stage(nn.Module):
    """The blocks of one resolution, behind a norm and a 2x2 convolution of stride 2 in all but the first stage."""

    def __init__(self, config: ConvNextV2Config, channels: int, out_channels: int, stride: int, rates: list[float]):
        super().__init__()
        self.downsample = nn.Sequential()
        if stride > 1 or channels != out_channels:
            self.downsample.append(LayerNorm2d(channels, eps=1e-6))
            self.downsample.append(nn.Conv2d(channels, out_channels, 2, stride))
        self.blocks = nn.Sequential(*[Block(out_channels, config.hidden_act, rate) for rate in rates])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


@register
class ConvNextV2Backbone(Backbone):
    """ConvNeXt V2; maps at strides 4 (stem), 4, 8, 16 and 32, each layer-normalised."""

    config_class = ConvNextV2Config
    keys = KeyMap(
        """
        embeddings.patch_embeddings                  stem.0
        embeddings.layernorm                         stem.1
        encoder.stages.{}.downsampling_layer.{}      stages.{}.downsample.{}
        encoder.stages.{}.layers.{}.dwconv           stages.{}.blocks.{}.conv
        encoder.stages.{}.layers.{}.layernorm        stages.{}.blocks.{}.norm
        encoder.stages.{}.layers.{}.pwconv1          stages.{}.blocks.{}.fc1
        encoder.stages.{}.layers.{}.grn              stages.{}.blocks.{}.grn
        encoder.stages.{}.layers.{}.pwconv2          stages.{}.blocks.{}.fc2
        hidden_states_norms.stem                     norms.stem
        hidden_states_norms.stage{}                  norms.stage{}
        """,
        prefixes=["convnextv2."],
        ignored=["classifier.*", "layernorm.*"],
        fresh=["hidden_states_norms.*"],
    )

    def __init__(self, config: ConvNextV2Config):
        super().__init__(config)
        levels = config.stages[: self.num_built]
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = nn.Sequential(
            nn.Conv2d(config.num_channels, config.hidden_sizes[0], config.patch_size, config.patch_size),
            LayerNorm2d(config.hidden_sizes[0], eps=1e-6),
        )
        self.stages = nn.ModuleList(
            ConvNextV2Stage(config, before.channels, level.channels, level.stride // before.stride, rate)
            for before, level, rate in zip(levels, levels[1:], rates, strict=False)
        )
        self.norms = MapNorms({s.name: s.channels for s in levels}, self.out_features, eps=1e-6)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return self.norms[name](state)
