"""What residual branches pass: stochastic depth and layer scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiply each channel of the last dimension by a learned factor, `value` at first (arXiv:2103.17239)."""

    def __init__(self, channels: int, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class DropPath(nn.Module):
    """Drop a branch for whole samples, with probability `rate` in training; scale the others up (arXiv:1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device) < keep
        return x * kept / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def rising_rates(last: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Drop rates that rise linearly from 0 in the first block to `last` in the last, grouped by stage."""
    total = max(sum(depths) - 1, 1)
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [[last * (start + j) / total for j in range(depth)] for start, depth in zip(starts, depths, strict=True)]
