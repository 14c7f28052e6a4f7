"""FocalNet (Yang et al., "Focal Modulation Networks", arXiv:2203.11926)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.keymap import KeyMap
from bbframe.layers.convolution import DepthwiseConv
from bbframe.layers.initialise import truncated_normal
from bbframe.layers.mlp import Mlp
from bbframe.layers.norm import LayerNorm2d
from bbframe.layers.residual import DropPath, LayerScale, rising_rates
from bbframe.layers.windows import fill_up
from bbframe.registry import register
from bbframe.schema import Length, Range, Rate
from bbframe.selection import Stage

Level = Annotated[int, Range(1, 16)]
Window = Annotated[int, Range(1, 63, "places")]


@dataclass(kw_only=True)
class FocalNetConfig(BackboneConfigMixin):
    """`depths` blocks a stage, the first of them with `embed_dim` channels, the next with twice as many, and so on;
    the defaults are FocalNet-T's with a small receptive field.

    A stage contextualises over `focal_levels` kernels, the first of side `focal_windows`, the next larger by 2 each.
    `use_conv_embed` embeds overlapping patches: the stride of the stem is 4 then, whatever `patch_size` says.
    """

    model_type: ClassVar[str] = "focalnet"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"encoder_stride", "image_size"})
    derived_fields: ClassVar[tuple[str, ...]] = ("hidden_sizes", "stage_names")

    num_channels: ranges.Bands = 3
    patch_size: ranges.PatchSize = 4
    embed_dim: ranges.Width = 96
    use_conv_embed: bool = False
    depths: ranges.Depths = (2, 2, 6, 2)
    focal_levels: Annotated[tuple[Level, ...], Length(1, 8)] = (2, 2, 2, 2)
    focal_windows: Annotated[tuple[Window, ...], Length(1, 8)] = (3, 3, 3, 3)
    hidden_act: ranges.Activation = "gelu"
    mlp_ratio: ranges.Ratio = 4.0
    hidden_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.1
    use_layerscale: bool = False
    layerscale_value: ranges.LayerScale = 1e-4
    use_post_layernorm: bool = False
    use_post_layernorm_in_modulation: bool = False
    normalize_modulator: bool = False
    initializer_range: ranges.Deviation = 0.02
    layer_norm_eps: ranges.Epsilon = 1e-5

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "focal_levels", "focal_windows")
        if any(window % 2 == 0 for window in self.focal_windows):
            raise ValueError(f"focalnet: focal_windows={list(self.focal_windows)} must be odd, to have a centre")

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """The channels of the maps behind the stem; a `config.json` may state others, which shape nothing."""
        last = len(self.depths) - 1
        return tuple(self.embed_dim * 2 ** min(i + 1, last) for i in range(len(self.depths)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        first = 4 if self.use_conv_embed else self.patch_size
        levels = [
            Stage(f"stage{i + 1}", channels, first * channels // self.embed_dim)
            for i, channels in enumerate(self.hidden_sizes)
        ]
        return (Stage("stem", self.embed_dim, first), *levels)


class Embedding(nn.Module):
    """Cut a map (B, C, H, W) into patches and project them: a map of lower resolution, normalised.

    Zeros fill the map up to a multiple of `patch_size` first.
    """

    def __init__(self, proj: nn.Conv2d, patch_size: int, eps: float):
        super().__init__()
        self.patch_size = patch_size
        self.proj = proj
        self.norm = LayerNorm2d(proj.out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = fill_up(x.permute(0, 2, 3, 1), self.patch_size)
        return self.norm(self.proj(x.permute(0, 3, 1, 2)))


class Stem(Embedding):
    """(B, num_channels, H, W) -> (B, embed_dim, H / stride, W / stride)."""

    def __init__(self, config: FocalNetConfig):
        patch, conv = config.patch_size, (7, 4, 2) if config.use_conv_embed else (config.patch_size, config.patch_size)
        super().__init__(nn.Conv2d(config.num_channels, config.embed_dim, *conv), patch, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x))


class Modulation(nn.Module):
    """Multiply each query by its context, gathered at several levels (section 3.2); maps (B, H, W, C)."""

    def __init__(self, config: FocalNetConfig, channels: int, levels: int, window: int):
        super().__init__()
        self.parts = (channels, channels, levels + 1)
        self.proj_in = nn.Linear(channels, sum(self.parts))
        kernels = [window + 2 * level for level in range(levels)]
        self.convs = nn.ModuleList(DepthwiseConv(channels, k, bias=False, act=nn.GELU()) for k in kernels)
        self.act = nn.GELU()
        self.share = 1 / (levels + 1) if config.normalize_modulator else 1.0
        self.proj_context = nn.Conv2d(channels, channels, 1)
        norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.norm = norm if config.use_post_layernorm_in_modulation else nn.Identity()
        self.proj_out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.proj_in(x).split(self.parts, dim=-1)
        *local, last = (gates * self.share).split(1, dim=-1)
        context, total = context.permute(0, 3, 1, 2), query.new_zeros(())
        for conv, gate in zip(self.convs, local, strict=True):
            context = conv(context)
            total = torch.addcmul(total, context.permute(0, 2, 3, 1), gate)
        everywhere = context.permute(0, 2, 3, 1).mean(dim=(1, 2), keepdim=True)
        total = torch.addcmul(total, self.act(everywhere), last)
        x = query * self.proj_context(total.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.dropout(self.proj_out(self.norm(x)))


class Block(nn.Module):
    """Focal modulation, then a perceptron, each behind its norm, or before it with `use_post_layernorm`; maps
    (B, C, H, W), inside (B, H, W, C)."""

    def __init__(self, config: FocalNetConfig, channels: int, levels: int, window: int, drop_path: float):
        super().__init__()
        eps, scale = config.layer_norm_eps, config.layerscale_value
        self.norm_last = config.use_post_layernorm
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.modulation = Modulation(config, channels, levels, window)
        self.scale1 = LayerScale(channels, scale) if config.use_layerscale else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = Mlp(channels, int(channels * config.mlp_ratio), config.hidden_act, config.hidden_dropout_prob)
        self.scale2 = LayerScale(channels, scale) if config.use_layerscale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        for norm, part, scale in (self.norm1, self.modulation, self.scale1), (self.norm2, self.mlp, self.scale2):
            branch = x.permute(0, 2, 3, 1)
            branch = norm(part(branch)) if self.norm_last else part(norm(branch))
            x = x + self.drop_path(scale(branch)).permute(0, 3, 1, 2)  # a map: so compilers lay out sums between convs
        return x


class FocalNetStage(nn.Module):
    """The blocks of one resolution, and behind them, in all stages but the last, the step to the next resolution."""

    def __init__(self, config: FocalNetConfig, index: int, rates: list[float]):
        super().__init__()
        channels = config.embed_dim * 2**index
        levels, window = config.focal_levels[index], config.focal_windows[index]
        self.blocks = nn.Sequential(*[Block(config, channels, levels, window, rate) for rate in rates])
        self.downsample: nn.Module = nn.Identity()
        if index < len(config.depths) - 1:
            conv = (3, 2, 1) if config.use_conv_embed else (2, 2)
            self.downsample = Embedding(nn.Conv2d(channels, 2 * channels, *conv), 2, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


@register
class FocalNetBackbone(Backbone):
    """FocalNet. The map of a stage is that behind its step to the next resolution: strides 4 (stem), 8, 16, 32 and 32.
    Hidden states are these maps."""

    config_class = FocalNetConfig
    config: FocalNetConfig
    keys = KeyMap(
        """
        embeddings.patch_embeddings.projection                        stem.proj
        embeddings.norm                                               stem.norm
        encoder.stages.{}.layers.{}.norm1                             stages.{}.blocks.{}.norm1
        encoder.stages.{}.layers.{}.modulation.projection_in          stages.{}.blocks.{}.modulation.proj_in
        encoder.stages.{}.layers.{}.modulation.focal_layers.{}.0      stages.{}.blocks.{}.modulation.convs.{}
        encoder.stages.{}.layers.{}.modulation.projection_context     stages.{}.blocks.{}.modulation.proj_context
        encoder.stages.{}.layers.{}.modulation.layernorm              stages.{}.blocks.{}.modulation.norm
        encoder.stages.{}.layers.{}.modulation.projection_out         stages.{}.blocks.{}.modulation.proj_out
        encoder.stages.{}.layers.{}.gamma_1                           stages.{}.blocks.{}.scale1.weight
        encoder.stages.{}.layers.{}.norm2                             stages.{}.blocks.{}.norm2
        encoder.stages.{}.layers.{}.mlp.fc1                           stages.{}.blocks.{}.mlp.fc1
        encoder.stages.{}.layers.{}.mlp.fc2                           stages.{}.blocks.{}.mlp.fc2
        encoder.stages.{}.layers.{}.gamma_2                           stages.{}.blocks.{}.scale2.weight
        encoder.stages.{}.downsample.projection                       stages.{}.downsample.proj
        encoder.stages.{}.downsample.norm                             stages.{}.downsample.norm
        layernorm                                                     norm
        """,
        saved_prefix="focalnet.",
        ignored=["classifier.*", "decoder.*", "embeddings.mask_token"],
    )

    def __init__(self, config: FocalNetConfig):
        super().__init__(config)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(FocalNetStage(config, i, rates[i]) for i in range(self.num_built - 1))
        self.norm = nn.LayerNorm(config.stages[-1].channels, eps=config.layer_norm_eps)
        self.norm.requires_grad_(False)  # a classifier's: no map passes it, but the Hub's checkpoints hold it
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """The linear layers; the convolutions keep torch's initial values, as the authors' do."""
        if isinstance(module, nn.Linear):
            truncated_normal(module.weight, self.config.initializer_range)
            nn.init.zeros_(module.bias)
