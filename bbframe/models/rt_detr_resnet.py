"""RT-DETR's ResNet (Zhao et al., arXiv:2304.08069): ResNet-vd (He et al., "Bag of Tricks", arXiv:1812.01187)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.hub.detector_hosts import detector_hosts
from bbframe.keymap import KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.convolution import ConvNorm, ConvNormAct
from bbframe.layers.windows import known
from bbframe.models.resnet import ResNetBackbone, ResNetConfig
from bbframe.registry import register
from bbframe.schema import Range


@dataclass(kw_only=True)
class RTDetrResNetConfig(ResNetConfig):
    """ResNet's config; the defaults are ResNet-50-vd's."""

    model_type: ClassVar[str] = "rt_detr_resnet"

    embedding_size: Annotated[int, Range(2, 32_768, "channels")] = 64


class DeepStem(nn.Module):
    """Three 3x3 convolutions instead of one of 7x7: (B, num_channels, H, W) -> (B, C, H / 4, W / 4)."""

    def __init__(self, config: RTDetrResNetConfig):
        super().__init__()
        widths = (config.num_channels, config.embedding_size // 2, config.embedding_size // 2, config.embedding_size)
        steps = zip(widths, widths[1:], (2, 1, 1), strict=False)
        self.convs = nn.Sequential(*(ConvNormAct(a, b, 3, activation(config.hidden_act), s) for a, b, s in steps))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.convs(x))


class HalvingPool(nn.AvgPool2d):
    """The average of each 2x2 places, of those that there are at an odd border."""

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        if known(x.shape[2], x.shape[3]):
            return super().forward(x)
        # the same, where a compiler works for any size: repeated places change no average
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2)


@register
class RTDetrResNetBackbone(ResNetBackbone):
    """ResNet-vd; maps at strides 4 (stem), 4, 8, 16 and 32.

    Where a stage halves the map, its shortcut averages 2x2 places instead of leaving out three of four. As in the
    checkpoints, one of basic blocks that keeps the channels does not; and every first basic block has a convolution
    in its shortcut.
    """

    config_class = RTDetrResNetConfig
    config: RTDetrResNetConfig
    stem_class = DeepStem
    keys = KeyMap(
        """
        embedder.embedder.{}.<convolution|normalization>                     stem.convs.{}.<conv|norm>
        encoder.stages.{}.layers.{}.layer.{}.<convolution|normalization>     stages.{}.blocks.{}.convs.{}.<conv|norm>
        encoder.stages.{}.layers.{}.shortcut.<convolution|normalization>     stages.{}.blocks.{}.shortcut.<conv|norm>
        encoder.stages.{}.layers.{}.shortcut.1.<convolution|normalization>   stages.{}.blocks.{}.shortcut.1.<conv|norm>
        """
    )
    _authors_keys = KeyMap(
        """
        conv1.conv1_{+1}.<conv|norm>                         stem.convs.{}.<conv|norm>
        res_layers.{}.blocks.{}.branch2<a|b|c>.<conv|norm>   stages.{}.blocks.{}.convs.<0|1|2>.<conv|norm>
        res_layers.{}.blocks.{}.short.<conv|norm>            stages.{}.blocks.{}.shortcut.<conv|norm>
        res_layers.{}.blocks.{}.short.conv.<conv|norm>       stages.{}.blocks.{}.shortcut.1.<conv|norm>
        """
    )
    # of resnet50d and its deeper sisters; resnet18d and resnet34d have no convolution in the first shortcut
    _timm_keys = KeyMap(
        """
        conv1.<0|1|3|4|6>                                    stem.convs.<0.conv|0.norm|1.conv|1.norm|2.conv>
        bn1                                                  stem.convs.2.norm
        layer{+1}.{}.<conv|bn>{+1}                           stages.{}.blocks.{}.convs.{}.<conv|norm>
        layer1.{}.downsample.<1|2>                           stages.0.blocks.{}.shortcut.<conv|norm>
        layer{+2}.{}.downsample.<1|2>                        stages.{+1}.blocks.{}.shortcut.1.<conv|norm>
        """,
        ignored=["fc.*"],
    )
    originals = (_authors_keys, _timm_keys)
    hosts = detector_hosts(keys, RTDetrResNetConfig)

    def shortcut(self, channels: int, out_channels: int, stride: int) -> nn.Module:
        basic, same = self.config.layer_type == "basic", channels == out_channels
        if stride > 1 and not (basic and same):
            return nn.Sequential(HalvingPool(), ConvNorm(channels, out_channels, 1))
        return nn.Identity() if stride == 1 and same and not basic else ConvNorm(channels, out_channels, 1, stride)
