"""Convolution with batch normalisation (Ioffe and Szegedy, arXiv:1502.03167)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbframe.layers.activation import activated
from bbframe.layers.linear import by_onednn, fused_activation, linear, needs_gradient
from bbframe.layers.once import as_autocast, once

_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # with what follows it; torch's own, private


def channels_last(x: Tensor) -> Tensor:
    """A map (B, C, H, W) with its channels side by side in a CPU's memory, as convolutions there are fastest.

    All that is computed from it by convolutions, norms and activations lies so too.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv: nn.Conv2d,
    act: nn.Module | None,
    residual: Tensor | None = None,
) -> Tensor:
    """What oneDNN makes of x (B, C, H, W) in one go: act(convolution + residual), by a convolution's geometry.

    Without gradients, and where `by_onednn` says so.
    """
    assert _POINTWISE is not None
    how = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    name, algorithm = fused_activation(act) or ("none", "")
    if residual is None:
        x = _POINTWISE(x, *how, name, [], algorithm)
        return x if name != "none" else activated(x, act)
    relu = "relu" if name == "relu" else None
    x = _POINTWISE.binary(x, residual, *how, "add", 1.0, relu, [], None)
    return x if relu else activated(x, act)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; a residual may be added, and an activation follow: maps (B, C, H, W)."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        if self._folds(x):
            return self._folded(x, act, residual)
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
            and (type(conv), type(norm)) == (nn.Conv2d, nn.BatchNorm2d)  # nobody replaced or listens to them
            and not any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
        )

    def _folded(self, x: Tensor, act: nn.Module | None, residual: Tensor | None) -> Tensor:
        weight, bias = once(self, self._folded_weights)
        x, residual = as_autocast(x, residual)
        return convolved(x, weight, bias, self.conv, act, residual)

    def _folded_weights(self) -> tuple[Tensor, Tensor]:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return as_autocast(self.conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution as a linear layer: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
