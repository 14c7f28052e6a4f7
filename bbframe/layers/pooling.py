"""Pooling of maps (B, C, H, W) of any size, in one graph for all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.layers.windows import known


def average_to(count: int, x: Tensor) -> Tensor:
    """The means of count x count parts of a map, which overlap where they must: (B, C, H, W) -> (B, C, count, count).

    A compiler that works for any size gets products with the shares of the places in each part.
    """
    if known(*x.shape[2:]):
        return F.adaptive_avg_pool2d(x, count)
    rows, columns = (_shares(count, side, x) for side in x.shape[2:])
    return rows @ x @ columns.t()


def _shares(count: int, side: int, like: Tensor) -> Tensor:
    """What each place along a side contributes to each part of it: (count, side)."""
    part, place = torch.arange(count, device=like.device)[:, None], torch.arange(side, device=like.device)
    inside = (place >= part * side // count) & (place < ((part + 1) * side + count - 1) // count)
    return (inside / inside.sum(dim=1, keepdim=True)).to(like.dtype)
