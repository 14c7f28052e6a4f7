"""Convolution, alone and with batch normalisation (Ioffe and Szegedy, arXiv:1502.03167)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.layers.activation import activated
from bbframe.layers.linear import by_onednn, fused_activation, linear, needs_gradient
from bbframe.layers.once import as_autocast, once

_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # with what follows it; torch's own, private
_FEW = 200  # places of a map, where a product of patches is faster: 7x7 to 14x14 of one image, up to 3 times


def channels_last(x: Tensor) -> Tensor:
    """A map, or kernels, (B, C, H, W), with the channels side by side in a CPU's memory: convolutions want it so.

    All that is computed from it by convolutions, norms and activations lies so too.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv: nn.Conv2d,
    act: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """act(x * weight + bias + residual) with the geometry of `conv`, in one go where that is possible.

    x is a map (B, C, H, W); the residual has the result's shape.
    """
    if by_onednn(x) and not needs_gradient(x, weight, bias, residual):
        return _in_one_go(conv, act, *as_autocast(x, weight, bias, residual))
    x = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return activated(x if residual is None else x.add_(residual), act)


def _in_one_go(
    conv: nn.Conv2d, act: nn.Module | None, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    assert _POINTWISE is not None
    name, algorithm = fused_activation(act) or ("none", "")
    rows = len(x) * (x.shape[2] // conv.stride[0]) * (x.shape[3] // conv.stride[1])
    if 0 < rows <= _FEW and conv.groups == 1 and conv.dilation == (1, 1):
        x, weight = _patches(x, conv), weight.permute(0, 2, 3, 1).flatten(1)
        x = linear(x, weight, bias, act if residual is None else None).permute(0, 3, 1, 2)
        return x if residual is None else activated(x.add_(residual), act)
    how = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    if residual is None:
        x = _POINTWISE(x, *how, name, [], algorithm)
        return x if name != "none" else activated(x, act)
    relu = "relu" if name == "relu" else None
    x = _POINTWISE.binary(x, residual, *how, "add", 1.0, relu, [], None)
    return x if relu else activated(x, act)


def _patches(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """What a convolution sees at each of its places: (B, C, H, W) -> (B, H', W', kH * kW * C)."""
    top, left = (int(side) for side in conv.padding)
    x = x.permute(0, 2, 3, 1)
    x = F.pad(x, (0, 0, left, left, top, top)) if top or left else x
    (height, width), (down, across) = conv.kernel_size, conv.stride
    return x.unfold(1, height, down).unfold(2, width, across).permute(0, 1, 2, 4, 5, 3).flatten(3)


class SamePad(nn.Module):
    """Zeros around a map (B, C, H, W), so that windows of `size` every `stride` places cover it; an odd one behind."""

    def __init__(self, size: int, stride: int):
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = ((side - 1) // self.stride * self.stride + self.size - side for side in x.shape[2:])
        return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class Conv(nn.Conv2d):
    """nn.Conv2d by the fastest way; an activation and a residual may follow in the same: maps (B, C, H, W)."""

    def reset_parameters(self) -> None:
        """Draw as torch does, kernels that lie as maps do."""
        if not self.weight.is_contiguous(memory_format=torch.channels_last):
            self.weight = nn.Parameter(torch.empty_like(self.weight, memory_format=torch.channels_last))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            bound = (self.weight.numel() // self.out_channels) ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        return convolution(x, self.weight, self.bias, self, act, residual)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution as a linear layer: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; a residual may be added, and an activation follow: maps (B, C, H, W)."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = Conv(channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        if self._folds(x):
            weight, bias = once(self, self._folded)
            return convolution(x, weight, bias, self.conv, act, residual)
        x = self.norm(self.conv(x))
        return activated(x if residual is None else x.add_(residual), act)

    def _folds(self, x: Tensor) -> bool:
        """Whether the norm is a fixed factor a channel that costs less on the kernels than on the map."""
        conv, norm = self.conv, self.norm
        stride = conv.stride[0] * conv.stride[1]
        return (
            by_onednn(x)
            and not norm.training
            and not needs_gradient(x, *self.parameters())
            and conv.weight.numel() < x.numel() // x.shape[1] // stride * conv.out_channels
            and (type(conv), type(norm)) == (Conv, nn.BatchNorm2d)  # nobody replaced or listens to them
            and norm.affine
            and norm.track_running_stats
            and not any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
        )

    def _folded(self) -> tuple[Tensor, Tensor]:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return as_autocast(self.conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor)
