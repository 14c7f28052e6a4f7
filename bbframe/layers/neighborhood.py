"""Neighbourhood attention (Hassani et al., arXiv:2204.07143), with dilation (Hassani and Shi, arXiv:2209.15001).

Each place of a map attends to the kernel x kernel places around it, in a window that stays inside the map. With
dilation d a window takes every d-th place only: the map falls into d * d groups of places that never meet, each a
map of its own without dilation.

The groups are cut into tiles. The queries of a tile share its keys, those of the tile and of a halo around it, and
what lies outside a query's own window is masked. Half to two thirds of the products are for nothing, but they are
products of matrices, and a key is copied up to four times instead of kernel * kernel times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bbframe.layers.attention import DotProductAttention, record, recorded_attentions, recording
from bbframe.layers.tiling import Cut, Tiling, extent, gather, places, spread, tiling
from bbframe.layers.windows import known


class NeighborhoodAttention(nn.Module):
    """Multi-head attention of each place to its neighbourhood; maps (B, H, W, C) of any size.

    A map smaller than kernel * dilation is filled up with zeros, which are neighbours like others. `qkv` computes
    query, key and value in one product; `around` comes from `neighborhoods`.
    """

    def __init__(
        self, qkv: nn.Linear, num_heads: int, kernel: int, dilation: int, attention_dropout: float, dropout: float
    ):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = qkv
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel - 1, 2 * kernel - 1))
        self.attend = TiledAttention(dilation, attention_dropout)
        self.proj = nn.Linear(qkv.in_features, qkv.in_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *around: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        blank = qkv.new_zeros(qkv.shape[3:]) if self.qkv.bias is None else self.qkv.bias.view(qkv.shape[3:])
        return self.dropout(self.proj(self.attend(qkv, self.rpb, blank[1:].to(qkv.dtype), *around).flatten(-2)))


class Neighborhoods(NamedTuple):
    """What follows from the size of a map alone, for all blocks with the same kernel and dilation."""

    seen: Tensor  # which keys of its tile each query sees, (groups, tiles, N, M)
    offsets: Tensor  # where their offsets are in a flattened table of biases, (N, M)
    queries: Tensor  # as those of `Places`
    keys: Tensor
    behind: Tensor
    back: Tensor


def neighborhoods(height: int, width: int, kernel: int, dilation: int, device: torch.device) -> Neighborhoods:
    """The neighbourhoods of all places of a map."""
    cuts = tiling(height, width, kernel, dilation)
    rows, row_offsets = _windows_along(cuts.rows, height, kernel, cuts, device)
    columns, column_offsets = _windows_along(cuts.columns, width, kernel, cuts, device)
    seen = rows[:, None, :, None, :, None, :, None] & columns[None, :, None, :, None, :, None, :]
    seen = seen.flatten(6, 7).flatten(4, 5).flatten(2, 3).flatten(0, 1)
    offsets = row_offsets[:, None, :, None] * (2 * kernel - 1) + column_offsets[None, :, None, :]
    offsets = offsets.flatten(2, 3).flatten(0, 1)
    return Neighborhoods(seen, offsets, *places(cuts, height, width, device))


def _windows_along(cut: Cut, side: int, kernel: int, cuts: Tiling, device: torch.device) -> tuple[Tensor, Tensor]:
    """One side of `neighborhoods`: (groups, tiles, size, span) and (size, span)."""
    group = torch.arange(cuts.groups, device=device)[:, None, None, None]
    keys = (extent(side, kernel, cuts.dilation) - group + cuts.dilation - 1) // cuts.dilation
    start = torch.arange(cut.tiles, device=device)[:, None, None] * cut.size - cut.before
    query = torch.arange(cut.size, device=device)[:, None]
    key = torch.arange(cut.span, device=device) - cut.reach
    offsets = (key - query + kernel - 1).clamp(0, 2 * kernel - 2)
    query, key = start + query, start + key
    first = torch.minimum((query - kernel // 2).clamp(min=0), keys - kernel)
    filled_in = (query < 0) | (query >= keys)  # sees everything: no row of scores is empty
    return (key >= first) & (key < first + kernel) | filled_in, offsets


class TiledAttention(nn.Module):
    """Attend from each place of a map to its neighbours: (B, H, W, 3, heads, D) -> (B, H, W, heads, D).

    The three are queries, keys and values; `blank`, (2, heads, D), holds key and value of the places that fill up a
    map smaller than kernel * dilation, on the right and at the bottom. `rpb`, (heads, 2 * kernel - 1, 2 * kernel - 1),
    holds the bias of each offset of a key from its query, in places of a group; `around` comes from `neighborhoods`.
    The probabilities are recorded as (B, heads, H, W, kernel * kernel), a window row by row.
    """

    def __init__(self, dilation: int, dropout: float = 0.0):
        super().__init__()
        self.dilation = dilation
        self.attend = DotProductAttention(dropout)

    def forward(self, qkv: Tensor, rpb: Tensor, blank: Tensor, *around: Tensor) -> Tensor:
        (_, H, W, *_), kernel = qkv.shape, (rpb.shape[-1] + 1) // 2
        seen, _, queries, keys, behind, back = around
        q, kv = gather(qkv[:, :, :, 0], queries), gather(qkv[:, :, :, 1:], keys)
        if not known(H, W) or min(H, W) < kernel * self.dilation:
            kv = torch.where(behind[..., None, None, None], blank, kv)
        k, v = kv.unbind(4)
        with recorded_attentions() if recording() else nullcontext() as of_tiles:
            x = attend_tiles(
                self.attend, q.movedim(4, 2), k.movedim(4, 2), v.movedim(4, 2), tile_bias(qkv, rpb, around)
            )
        if of_tiles is not None:
            window = seen.int().argsort(dim=-1, descending=True, stable=True)[..., : kernel**2]
            probabilities = of_tiles[0].view(*x.shape[:-1], -1).gather(-1, window[:, None].expand(*x.shape[:-1], -1))
            record(spread(probabilities, back, H, W).permute(0, 3, 1, 2, 4))
        return spread(x, back, H, W)


def tile_bias(qkv: Tensor, rpb: Tensor, around: Sequence[Tensor]) -> Tensor:
    """What each head adds to the scores of a tile's queries and keys: (groups, heads, tiles, N, M)."""
    seen, offsets = around[:2]
    return torch.where(seen[:, None], rpb.to(qkv.dtype).flatten(1)[:, offsets][:, None], float("-inf"))


def attend_tiles(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend from the queries of tiles (B, groups, heads, tiles, N, D) to their keys, with a bias of `tile_bias`."""
    shape = q.shape
    if len(bias) == 1:  # alike in all groups
        q, k, v = (x.flatten(2, 3).flatten(0, 1) for x in (q, k, v))
    else:
        q, k, v = (x.flatten(1, 3) for x in (q, k, v))
    return attend(q, k, v, bias.flatten(0, 2)).view(shape)
