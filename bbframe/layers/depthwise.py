"""Depth-wise convolution that keeps the size of a map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.layers.activation import activated
from bbframe.layers.convolution import Conv
from bbframe.layers.linear import by_onednn, needs_gradient
from bbframe.layers.once import as_autocast


class DepthwiseConv(Conv):
    """One odd kernel a channel, zeros at the borders: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel: int, bias: bool = True):
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)

    def forward(self, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        # smaller kernels are fast anyway, and larger maps would be kernels of another kind to oneDNN
        fits = by_onednn(x) and 5 <= self.kernel_size[0] <= min(x.shape[2:]) and x.shape[2:].numel() <= 64 * 64
        if fits and residual is None and needs_gradient(x, self.weight, self.bias):
            return activated(_Depthwise.apply(*as_autocast(x, self.weight, self.bias)), act)
        return super().forward(x, act, residual)


class _Depthwise(torch.autograd.Function):
    """The same with a faster gradient of the kernels, for which maps and gradients change places.

    What oneDNN has for it takes 14 ms for 7x7 kernels over 7x7 maps (8 images, 768 channels, two cores of a Zen 4),
    and 19 ms over 56x56 ones (96 channels); a convolution of each map by its gradient 1.4 and 12 ms.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        pad, channels = weight.shape[2] // 2, len(weight)
        maps = (1, x.shape[0] * channels, *x.shape[2:])
        swapped = torch.zeros(())
        if of_weight:
            kernels = grad.reshape(maps).transpose(0, 1)
            swapped = F.conv2d(x.reshape(maps), kernels, padding=pad, groups=maps[1])
            swapped = swapped.view(len(x), *weight.shape).sum(0)
        return (
            _input_gradient(x, weight, grad, pad) if of_x else None,
            swapped if of_weight else None,
            grad.permute(0, 2, 3, 1).flatten(0, 2).sum(0) if of_bias else None,
        )


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor, pad: int) -> Tensor:
    """That of x, which lies in memory as x does: torch.nn.grad.conv2d_input returns another layout.

    A training step of FocalNet-T takes 10 % longer with that, one of ConvNeXt-T 8 %.
    """
    geometry = ([1, 1], [pad, pad], [1, 1], False, [0, 0], len(weight))
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [True, False, False])[0]
