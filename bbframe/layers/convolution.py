"""Convolution with batch normalisation (Ioffe and Szegedy, arXiv:1502.03167), and padding as TensorFlow has it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SamePad(nn.Module):
    """Zeros around a map (B, C, H, W), so that windows of `size` every `stride` places cover it; an odd one behind."""

    def __init__(self, size: int, stride: int):
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = ((side - 1) // self.stride * self.stride + self.size - side for side in x.shape[2:])
        return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class ConvNorm(nn.Module):
    """Convolution and batch normalisation of maps (B, C, H, W); an odd kernel keeps their size, times the stride."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ConvNormAct(ConvNorm):
    """Convolution, batch normalisation and an activation of maps (B, C, H, W)."""

    def __init__(
        self, channels: int, out_channels: int, kernel_size: int, act: nn.Module, stride: int = 1, groups: int = 1
    ):
        super().__init__(channels, out_channels, kernel_size, stride, groups)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class DepthwiseConv(nn.Conv2d):
    """One odd kernel a channel, zeros at the borders, then an activation if any: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel: int, bias: bool = True, act: nn.Module | None = None):
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))
