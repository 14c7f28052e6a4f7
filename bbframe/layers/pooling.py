"""Pooling of maps of any size, in one graph for all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.layers.windows import known, repeat_edges


def largest(x: Tensor, stride: int) -> Tensor:
    """The maxima of groups of stride x stride places, of fewer at the edges: maps (B, H, W, C)."""
    if stride == 1:
        return x
    return F.max_pool2d(repeat_edges(x, stride).permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)


def at_least(side: int, x: Tensor) -> Tensor:
    """Fill a map (B, C, H, W) up with zeros, on the right and at the bottom, to `side` places each way."""
    H, W = x.shape[2:]
    if known(H, W):
        return F.pad(x, (0, max(side - W, 0), 0, max(side - H, 0))) if min(H, W) < side else x
    lacking = [torch.sym_max(side - given, 0) for given in (W, H)]
    return F.pad(x, (0, lacking[0], 0, lacking[1]))  # type: ignore[arg-type]


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
