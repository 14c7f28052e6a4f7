"""DINOv3's ConvNeXt (Siméoni et al., "DINOv3", arXiv:2508.10104), distilled from its 7B transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bbframe import ranges
from bbframe.keymap import KeyMap
from bbframe.layers.residual import LayerScale
from bbframe.models.convnext import Block as ConvNextBlock
from bbframe.models.convnext import ConvNextBackbone, ConvNextTower, ConvNextTowerFields
from bbframe.registry import register


@dataclass(kw_only=True)
class DINOv3ConvNextConfig(ConvNextTowerFields):
    """`depths` blocks a stage of `hidden_sizes` channels; the defaults are the tiny variant's.

    Layer scale starts with `layer_scale_init_value`, at 0 too. All norms have `layer_norm_eps`.
    """

    model_type: ClassVar[str] = "dinov3_convnext"

    layer_norm_eps: ranges.Epsilon = 1e-6
    layer_scale_init_value: ranges.LayerScale = 1e-6

    @property
    def norm_eps(self) -> float:
        return self.layer_norm_eps


class Block(ConvNextBlock):
    """ConvNeXt's block, always with layer scale."""

    def __init__(self, config: DINOv3ConvNextConfig, channels: int, drop_path: float):
        super().__init__(config, channels, drop_path)
        self.scale = LayerScale(channels, config.layer_scale_init_value)


@register
class DINOv3ConvNextBackbone(ConvNextTower):
    """DINOv3's ConvNeXt; maps at strides 4 (stem), 4, 8, 16 and 32, not normalised.

    The stem's map is the one behind the patches and their norm; transformers returns the image under that name. The
    norm in the checkpoints belongs to the pooled features, which are no map. Hidden states are maps (B, C, H, W).
    """

    config_class = DINOv3ConvNextConfig
    block_class = Block
    keys = KeyMap(
        """
        stages.0.downsample_layers.{}             stem.{}
        stages.{+1}.downsample_layers.{}          stages.{+1}.downsample.{}
        stages.{}.layers.{}.depthwise_conv        stages.{}.blocks.{}.conv
        stages.{}.layers.{}.layer_norm            stages.{}.blocks.{}.norm
        stages.{}.layers.{}.pointwise_conv1       stages.{}.blocks.{}.fc1
        stages.{}.layers.{}.pointwise_conv2       stages.{}.blocks.{}.fc2
        stages.{}.layers.{}.gamma                 stages.{}.blocks.{}.scale.weight
        """,
        prefixes=["model."],
        ignored=["layer_norm.*"],
    )
    _authors_keys = KeyMap(
        """
        downsample_layers.0.{}                    stem.{}
        downsample_layers.{+1}.{}                 stages.{}.downsample.{}
        stages.{}.{}.dwconv                       stages.{}.blocks.{}.conv
        stages.{}.{}.norm                         stages.{}.blocks.{}.norm
        stages.{}.{}.pwconv1                      stages.{}.blocks.{}.fc1
        stages.{}.{}.pwconv2                      stages.{}.blocks.{}.fc2
        stages.{}.{}.gamma                        stages.{}.blocks.{}.scale.weight
        """,
        ignored=["norm.*", "norms.*"],
    )
    originals = (_authors_keys, *ConvNextBackbone.originals)  # of the authors, and of timm
