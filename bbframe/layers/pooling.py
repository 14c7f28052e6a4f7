"""Max pooling that keeps the places of the maxima for its gradient, and not its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bbframe.layers.linear import by_hand, needs_gradient

_aten = torch.ops.aten


class MaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d of a map (B, C, H, W), whose gradient takes less memory: torch's keeps the map, for its size.

    That of a stem is the largest of a network: 25 of the 756 MiB that a training step of ResNet-50 takes for 8 images.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.return_indices or not (by_hand() and needs_gradient(x)):
            return super().forward(x)
        sides = self.kernel_size, self.stride, self.padding, self.dilation
        geometry = [[side, side] if isinstance(side, int) else list(side) for side in sides]
        return _MaxPool.apply(x, [*geometry, self.ceil_mode])


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: list[Any]) -> Tensor:
        maxima, places = _aten.max_pool2d_with_indices(x, *geometry)
        ctx.save_for_backward(places)
        ctx.geometry, ctx.layout = geometry, (x.shape, x.stride())
        return maxima

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        like = grad.new_empty_strided(*ctx.layout)  # nothing else is read of it
        return _aten.max_pool2d_with_indices_backward(grad, like, *ctx.geometry, places), None
