"""Neighbourhood attention (Hassani et al., arXiv:2204.07143), with dilation (Hassani and Shi, arXiv:2209.15001).

Each place of a map attends to the kernel x kernel places around it, in a window that stays inside the map. With
dilation d a window takes every d-th place only: the map falls into d * d groups of places that never meet, each a
map of its own without dilation.

The groups are cut into tiles. The queries of a tile share its keys, those of the tile and of a halo around it, and
what lies outside a query's own window is masked. Half to two thirds of the products are for nothing, but they are
products of matrices, and a key is copied up to four times instead of kernel * kernel times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bbframe.layers.attention import attend, attention_gradient, record, recorded_attentions, recording, some
from bbframe.layers.linear import Linear
from bbframe.layers.tiling import (
    Cut,
    Tiling,
    extent,
    from_groups,
    gather,
    join,
    pieces,
    places,
    split,
    split_keys,
    spread,
    sum_keys,
    tiling,
    to_groups,
)
from bbframe.layers.windows import known


class NeighborhoodAttention(nn.Module):
    """Multi-head attention of each place to its neighbourhood; maps (B, H, W, C) of any size.

    A map smaller than kernel * dilation is filled up with zeros, which are neighbours like others. `qkv` computes
    query, key and value in one product; `around` is that of `neighborhoods`.
    """

    def __init__(
        self, qkv: nn.Linear, num_heads: int, kernel: int, dilation: int, attention_dropout: float, dropout: float
    ):
        super().__init__()
        self.num_heads, self.dilation, self.attention_dropout = num_heads, dilation, attention_dropout
        self.qkv = qkv
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel - 1, 2 * kernel - 1))
        self.proj = Linear(qkv.in_features, qkv.in_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *around: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        blank = qkv.new_zeros(qkv.shape[3:]) if self.qkv.bias is None else self.qkv.bias.view(qkv.shape[3:])
        dropout = self.attention_dropout if self.training else 0.0
        x = neighborhood_attention(qkv, self.rpb, self.dilation, blank[1:], around, dropout)
        return self.dropout(self.proj(x.flatten(-2)))


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


def neighborhood_attention(
    qkv: Tensor, rpb: Tensor, dilation: int, blank: Tensor, around: Sequence[Tensor], dropout: float = 0.0
) -> Tensor:
    """Attend from each place of a map to its neighbours: (B, H, W, 3, heads, D) -> (B, H, W, heads, D).

    The three are queries, keys and values; `blank`, (2, heads, D), holds key and value of the places that fill up a
    map smaller than kernel * dilation, on the right and at the bottom. `rpb`, (heads, 2 * kernel - 1, 2 * kernel - 1),
    holds the bias of each offset of a key from its query, in places of a group; `around` is that of `neighborhoods`.
    What is recorded is (B, heads, H, W, kernel * kernel), a window row by row.
    """
    (_, H, W, *_), kernel = qkv.shape, (rpb.shape[-1] + 1) // 2
    seen, offsets, queries, keys, behind, back = around
    blank = blank.to(qkv.dtype)
    if known(H, W) and max(H, W) < kernel * dilation and not recording():
        return _attend_in_small_map(qkv, rpb, dilation, blank, dropout)
    bias = torch.where(seen[:, None], rpb.to(qkv.dtype).flatten(1)[:, offsets][:, None], float("-inf"))
    if qkv.device.type == "cpu" and not (dropout or recording() or torch.compiler.is_compiling()):
        k, v = _filled_up(qkv[:, :, :, 1:], blank, kernel * dilation).unbind(3)
        return _AttendOnCpu.apply(qkv[:, :, :, 0], k, v, bias, tiling(H, W, kernel, dilation))
    q, kv = gather(qkv[:, :, :, 0], queries), gather(qkv[:, :, :, 1:], keys)
    if not known(H, W) or min(H, W) < kernel * dilation:
        kv = torch.where(behind[..., None, None, None], blank, kv)
    k, v = kv.unbind(4)
    with recorded_attentions() if recording() else nullcontext() as of_tiles:
        x = _attend(q.movedim(4, 2), k.movedim(4, 2), v.movedim(4, 2), bias, dropout)
    if of_tiles is not None:
        window = seen.int().argsort(dim=-1, descending=True, stable=True)[..., : kernel**2]
        probabilities = of_tiles[0].view(*x.shape[:-1], -1).gather(-1, window[:, None].expand(*x.shape[:-1], -1))
        record(spread(probabilities, back, H, W).permute(0, 3, 1, 2, 4))
    return spread(x, back, H, W)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend from the queries of tiles to their keys, with a bias (groups, heads, tiles, N, M)."""
    shape = q.shape
    if len(bias) == 1:  # alike in all groups
        q, k, v = (x.flatten(2, 3).flatten(0, 1) for x in (q, k, v))
    else:
        q, k, v = (x.flatten(1, 3) for x in (q, k, v))
    return attend(q, k, v, bias.flatten(0, 2), dropout).view(shape)


def _attend_in_small_map(qkv: Tensor, rpb: Tensor, dilation: int, blank: Tensor, dropout: float) -> Tensor:
    """`neighborhood_attention` where each group, once filled up, is one window.

    All that fills a group up has the same key and value: it is one key more, whose bias is that of all of them.
    """
    (_, H, W, *_), kernel = qkv.shape, (rpb.shape[-1] + 1) // 2
    dilation = min(dilation, max(H, W))  # the groups after these are empty
    rows, columns = pieces(H, dilation), pieces(W, dilation)
    q, k, v = (to_groups(x, dilation, (0, rows), (0, columns)).flatten(4, 5).flatten(1, 2) for x in qkv.unbind(3))
    k_blank, v_blank = blank[:, :, None].expand(*k.shape[:2], 2, -1, 1, -1).unbind(2)
    k, v = torch.cat([k, k_blank], dim=-2), torch.cat([v, v_blank], dim=-2)
    place, group = torch.arange(kernel, device=qkv.device), torch.arange(dilation, device=qkv.device)[:, None]
    row_offsets, column_offsets = (place - place[:count, None] + kernel - 1 for count in (rows, columns))
    bias = rpb[:, row_offsets[:, None, :, None], column_offsets[None, :, None, :]].flatten(1, 2)
    on_row, on_column = (place * dilation + group < side for side in (H, W))
    there = (on_row[:, None, :, None] & on_column[None, :, None, :]).flatten(0, 1)[:, None, None]
    of_blanks = torch.where(there, -1e4, bias).flatten(-2).logsumexp(-1, keepdim=True)
    bias = torch.where(there, bias, float("-inf"))[..., :rows, :columns].flatten(-2)
    x = attend(q, k, v, torch.cat([bias, of_blanks], dim=-1).to(q.dtype), dropout)
    x = x.unflatten(3, (rows, columns)).unflatten(1, (dilation, dilation))
    return from_groups(x, dilation, 0, 0, qkv)


def _filled_up(x: Tensor, blank: Tensor, least: int) -> Tensor:
    """A map with blanks on the right and at the bottom where its sides are shorter than `least`."""
    B, H, W, *_ = x.shape
    if min(H, W) >= least:
        return x
    filled = blank.expand(B, max(H, least), max(W, least), *blank.shape).clone()
    filled[:, :H, :W] = x
    return filled


class _AttendOnCpu(torch.autograd.Function):
    """The same for a CPU in half the time and with less memory: a few images at a time, their gradient written out.

    The fused kernel has no gradient for a bias there, and what PyTorch does instead keeps several copies of all
    scores. This keeps none, and computes those of a few images again.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, cuts: Tiling) -> Tensor:
        parts = []
        for a, b, c in _some_images(bias, cuts, q, k, v):
            x = _attend(split(a, cuts), split_keys(b, cuts), split_keys(c, cuts), bias.detach())
            parts.append(join(x, cuts, a))
        x = torch.cat(parts)
        ctx.save_for_backward(q, k, v, x, bias)
        ctx.cuts = cuts
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *saved, bias = ctx.saved_tensors
        cuts, scale = ctx.cuts, grad.shape[-1] ** -0.5
        bias_grad = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        grads: tuple[list[Tensor], ...] = ([], [], [])
        for q, k, v, x, g in _some_images(bias, cuts, *saved, grad):
            tiles = split(q, cuts), split_keys(k, cuts), split_keys(v, cuts), split(x, cuts), split(g, cuts)
            of_tiles = attention_gradient(tiles, bias[None], bias_grad, scale)
            for found, of_one, back, like in zip(grads, of_tiles, (join, sum_keys, sum_keys), (q, k, v), strict=True):
                found.append(back(of_one, cuts, like))
        return (*map(torch.cat, grads), bias_grad.to(bias.dtype), None)


def _some_images(bias: Tensor, cuts: Tiling, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    count = some(bias[0].numel() * cuts.dilation**2)
    return zip(*(x.split(count) for x in maps), strict=True)
