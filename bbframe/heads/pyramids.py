"""Pyramids: maps of a backbone -> maps of one width at rising strides."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from bbframe.heads.levels import choose_pyramid
from bbframe.layers.norm import LayerNorm2d


class FPN(nn.Module):
    """Feature pyramid network (Lin et al., arXiv:1612.03144) on maps of rising strides, one level a map.

    Raises ValueError when strides do not rise.
    """

    title = "feature pyramid"

    def __init__(self, channels: Sequence[int], strides: Sequence[int], out_channels: int):
        super().__init__()
        choose_pyramid("fpn", strides)
        self.reads = list(range(len(strides)))
        self.strides = [float(stride) for stride in strides]
        self.out_channels = out_channels
        self.fpn = FeaturePyramidNetwork(list(channels), out_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return list(self.fpn(OrderedDict((str(i), maps[i]) for i in self.reads)).values())


class SimplePyramid(nn.Module):
    """The simple pyramid of ViTDet (Li et al., arXiv:2203.16527): every level is made from the last map alone.

    Each has the stride nearest to one of the `wanted` that doubling and halving the map's own can reach. Weights begin
    as those of an FPN do, uniform with a variance of 1 / fan-in (He et al., arXiv:1502.01852).
    """

    title = "simple feature pyramid"

    def __init__(self, channels: Sequence[int], strides: Sequence[int], out_channels: int, wanted: Sequence[int]):
        super().__init__()
        self.reads = [len(strides) - 1]
        powers = [round(math.log2(strides[-1] / stride)) for stride in wanted]
        self.strides = [strides[-1] / 2**power for power in powers]
        self.out_channels = out_channels
        self.levels = nn.ModuleList(self._level(channels[-1], power, out_channels) for power in powers)
        _initialise(self)

    @staticmethod
    def _level(channels: int, power: int, out_channels: int) -> nn.Sequential:
        """(B, channels, H, W) -> (B, out_channels, H * 2**power, W * 2**power), rounded up."""
        layers: list[nn.Module] = []
        for step in range(power):
            if step > 0:
                layers += [LayerNorm2d(channels), nn.GELU()]
            layers.append(nn.ConvTranspose2d(channels, max(channels // 2, 1), 2, stride=2))
            channels = max(channels // 2, 1)
        if power < 0:
            layers.append(WholeMaxPool(2**-power))
        layers += [nn.Conv2d(channels, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
        layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
        return nn.Sequential(*layers)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [level(maps[self.reads[0]]) for level in self.levels]


class WholeMaxPool(nn.Module):
    """Max pooling of squares of `size` places, in which the last row and column of an odd map count too.

    torch.export cannot describe the `ceil_mode` of torch's for maps of any size.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        more = self.size - 1  # what a square that begins with the last place lacks; further squares do not fit
        return F.max_pool2d(F.pad(x, (0, more, 0, more), value=-math.inf), self.size)


class ConvolvedLevels(nn.Module):
    """`count` more levels, each half the size of the one before, by convolutions with ReLU between them.

    Two of them are P6 and P7 of RetinaNet (Lin et al., arXiv:1708.02002).
    """

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(count))
        _initialise(self)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        levels = list(levels)
        for i, conv in enumerate(self.convs):
            levels.append(conv(F.relu(levels[-1]) if i else levels[-1]))
        return levels


class SubsampledLevels(nn.Module):
    """`count` more levels, each every second value of the one before, as in arXiv:1612.03144."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        levels = list(levels)
        for _ in range(self.count):
            levels.append(F.max_pool2d(levels[-1], 1, 2))  # torch.export cannot describe [::2] for any size
        return levels


def make_pyramid(
    name: str | None, channels: Sequence[int], strides: Sequence[int], out_channels: int, wanted: Sequence[int]
) -> FPN | SimplePyramid:
    """The pyramid that `choose_pyramid` names."""
    if choose_pyramid(name, strides) == "simple":
        return SimplePyramid(channels, strides, out_channels, wanted)
    return FPN(channels, strides, out_channels)


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
