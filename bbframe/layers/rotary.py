"""Rotary positions (Su et al., arXiv:2104.09864) by the coordinates of patches (Heo et al., arXiv:2403.13298)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bbframe.layers.attention import Attention, join_heads


class RotaryPositions(nn.Module):
    """The rotations of a head's `width` channels at each token: cosines and sines, each (num_prefix + H * W, width).

    A patch's centre has coordinates within -1..1, down and across; each is times 2 pi * theta ** (-4 i / width)
    for i = 0, 1, ..., width / 4 - 1. The first half of a head's channels are real parts, the second imaginary ones;
    the first half of each turns by the row, the second by the column. Tokens before the patches do not turn.

    In training the coordinates of a whole batch are shifted by up to `shift` along each side, stretched by a factor
    within 1 / `jitter`..`jitter` along each side and by one within 1 / `rescale`..`rescale` along both, log-uniformly;
    None leaves a step out. The angles are computed in float32 at each call, whatever the dtype of the weights.
    """

    def __init__(
        self,
        width: int,
        theta: float,
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = None,
    ):
        super().__init__()
        self.width, self.theta = width, theta
        self.shift, self.jitter, self.rescale = shift, jitter, rescale

    def forward(self, grid: tuple[int, int], num_prefix: int, device: torch.device) -> tuple[Tensor, Tensor]:
        sides = (2 * (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side - 1 for side in grid)
        coordinates = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)  # (H * W, 2)
        if self.training:
            coordinates = self._augmented(coordinates)
        steps = torch.arange(self.width // 4, device=device, dtype=torch.float32) * (4 / self.width)
        angles = (2 * math.pi * coordinates[:, :, None] * self.theta**-steps).flatten(1)
        angles = torch.cat([angles.new_zeros(num_prefix, self.width // 2), angles])
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)

    def _augmented(self, coordinates: Tensor) -> Tensor:
        if self.shift is not None:
            coordinates = coordinates + coordinates.new_empty(1, 2).uniform_(-self.shift, self.shift)
        for factor, count in ((self.jitter, 2), (self.rescale, 1)):
            if factor is not None:
                most = math.log(factor)
                coordinates = coordinates * coordinates.new_empty(1, count).uniform_(-most, most).exp()
        return coordinates


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn vectors x (..., width) by `RotaryPositions`, which broadcast to them; in float32, as the dtype of x."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([second, first], dim=-1) * sin).to(x.dtype)


class RotaryAttention(Attention):
    """Multi-head self-attention of tokens (..., N, C), whose queries and keys turn by their positions."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k = rotate(qkv[..., :2, :, :], cos[:, None, None], sin[:, None, None]).transpose(-4, -2).unbind(-3)
        v = qkv[..., 2, :, :].transpose(-3, -2)
        return self.dropout(self.proj(join_heads(self.attend(q, k, v))))
