"""Convolution with batch normalisation (Ioffe and Szegedy, arXiv:1502.03167)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbframe.layers.linear import by_onednn, fused_activation, needs_gradient
from bbframe.layers.precision import as_autocast

_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # with what follows it; torch's own, private


def channels_last(x: Tensor) -> Tensor:
    """A map (B, C, H, W) with its channels side by side in a CPU's memory, as convolutions there are fastest.

    All that is computed from it by convolutions, norms and activations lies so too.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; a residual may be added, and an activation follow: maps (B, C, H, W)."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        if self._folds(x, act):
            return self._folded(x, act, residual)
        x = self.norm(self.conv(x))
        if residual is not None:
            x = x + residual
        return x if act is None else act(x)

    def _folds(self, x: Tensor, act: nn.Module | None) -> bool:
        """Whether the norm is a fixed factor a channel that costs less on the kernels than on the map."""
        conv, norm = self.conv, self.norm
        stride = conv.stride[0] * conv.stride[1]
        return (
            by_onednn(x)
            and _POINTWISE is not None
            and not norm.training
            and not needs_gradient(x, *self.parameters())
            and conv.weight.numel() < x.numel() // x.shape[1] // stride * conv.out_channels
            and (type(conv), type(norm)) == (nn.Conv2d, nn.BatchNorm2d)  # nobody replaced or listens to them
            and not any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
            and fused_activation(act) is not None
        )

    def _folded(self, x: Tensor, act: nn.Module | None, residual: Tensor | None) -> Tensor:
        conv, norm = self.conv, self.norm
        assert _POINTWISE is not None and norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight, bias = conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor
        x, weight, bias, residual = as_autocast(x, weight, bias, residual)
        how = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
        name, algorithm = fused_activation(act) or ("none", "")
        if residual is None:
            return _POINTWISE(x, *how, name, [], algorithm)
        if name in ("none", "relu"):
            return _POINTWISE.binary(x, residual, *how, "add", 1.0, None if name == "none" else name, [], None)
        x = _POINTWISE.binary(x, residual, *how, "add", 1.0, None, [], None)
        return x if act is None else act(x)
