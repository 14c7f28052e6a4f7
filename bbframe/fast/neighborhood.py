"""Neighbourhood attention for a CPU: a few images at a time, and with its gradient written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bbframe.fast.attention import attention, attention_gradient, some
from bbframe.fast.converter import swaps, unheard
from bbframe.fast.probe import by_hand
from bbframe.layers.attention import recording
from bbframe.layers.neighborhood import Cut, TiledAttention, Tiling, attend_tiles, pieces, tile_bias, tiling


@swaps("bbframe.layers.neighborhood.TiledAttention")
def tiled_forward(tiled: TiledAttention, qkv: Tensor, rpb: Tensor, blank: Tensor, *around: Tensor) -> Tensor:
    """The forward of `TiledAttention`: the gradient is computed tile by tile, and scores are not kept."""
    (_, H, W, *_), kernel = qkv.shape, (rpb.shape[-1] + 1) // 2
    drops = tiled.training and tiled.attend.dropout
    if drops or recording() or not (by_hand(qkv, rpb, blank) and unheard(tiled.attend)):
        return type(tiled).forward(tiled, qkv, rpb, blank, *around)
    k, v = _filled_up(qkv[:, :, :, 1:], blank, kernel * tiled.dilation).unbind(3)
    bias, cuts = tile_bias(qkv, rpb, around), tiling(H, W, kernel, tiled.dilation)
    return _TiledAttention.apply(qkv[:, :, :, 0], k, v, bias, cuts)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return attention(q, k, v, bias, q.shape[-1] ** -0.5)


def _filled_up(x: Tensor, blank: Tensor, least: int) -> Tensor:
    """A map with blanks on the right and at the bottom where its sides are shorter than `least`."""
    B, H, W, *_ = x.shape
    if min(H, W) >= least:
        return x
    filled = blank.expand(B, max(H, least), max(W, least), *blank.shape).clone()
    filled[:, :H, :W] = x
    return filled


class _TiledAttention(torch.autograd.Function):
    """The same for a CPU in half the time and with less memory: a few images at a time, their gradient written out.

    The fused kernel has no gradient for a bias there, and what PyTorch does instead keeps several copies of all
    scores. This keeps none, and computes those of a few images again.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, cuts: Tiling) -> Tensor:
        parts = []
        for a, b, c in _some_images(bias, cuts, q, k, v):
            x = attend_tiles(_attend, split(a, cuts), split_keys(b, cuts), split_keys(c, cuts), bias.detach())
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


# tiles as views, which one copy makes dense: three times as fast as gathering where copies are dear


def _to_groups(x: Tensor, dilation: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """A map for each group: (B, H, W, heads, D) -> (B, dilation, dilation, heads, height, width, D).

    Each side is given by how many zeros stand ahead of the first place, and by its length.
    """
    (top, height), (left, width) = rows, columns
    bottom, right = -x.shape[1] % dilation, -x.shape[2] % dilation
    if bottom or right:
        x = F.pad(x, (0, 0, 0, 0, 0, right, 0, bottom))
    x = x.unflatten(1, (-1, dilation)).unflatten(3, (-1, dilation)).permute(0, 2, 4, 5, 1, 3, 6)
    bottom, right = height - top - x.shape[4], width - left - x.shape[5]
    return F.pad(x, (0, 0, left, right, top, bottom)) if any((top, bottom, left, right)) else x


def _from_groups(x: Tensor, dilation: int, top: int, left: int, like: Tensor) -> Tensor:
    """Undo `_to_groups` of a map `like` this one."""
    _, H, W, *_ = like.shape
    x = x[:, :, :, :, top : top + pieces(H, dilation), left : left + pieces(W, dilation)].permute(0, 4, 1, 5, 2, 3, 6)
    return x.flatten(3, 4).flatten(1, 2)[:, :H, :W]


def split(x: Tensor, cuts: Tiling) -> Tensor:
    """The queries of all tiles."""
    rows, columns, *_ = cuts
    x = _to_groups(
        x, cuts.dilation, (rows.before, rows.tiles * rows.size), (columns.before, columns.tiles * columns.size)
    )
    x = x.unflatten(5, (columns.tiles, columns.size)).unflatten(4, (rows.tiles, rows.size)).transpose(5, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(1, 2)


def join(x: Tensor, cuts: Tiling, like: Tensor) -> Tensor:
    """Undo `split` of a map `like` this one."""
    (B, _, _, heads, D), (rows, columns, d, _) = like.shape, cuts
    x = x.reshape(B, d, d, heads, rows.tiles, columns.tiles, rows.size, columns.size, D).transpose(5, 6)
    return _from_groups(x.flatten(6, 7).flatten(4, 5), d, rows.before, columns.before, like)


def split_keys(x: Tensor, cuts: Tiling) -> Tensor:
    """The keys of all tiles, zeros beyond the ends of the map."""
    rows, columns, *_ = cuts
    ends = [(cut.before + cut.reach, (cut.tiles - 1) * cut.size + cut.span) for cut in (rows, columns)]
    x = _to_groups(x, cuts.dilation, *ends).unfold(4, rows.span, rows.size).unfold(5, columns.span, columns.size)
    return x.movedim(6, -1).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def sum_keys(x: Tensor, cuts: Tiling, like: Tensor) -> Tensor:
    """What the keys of all tiles are for a place together, in a map `like` this one: the gradient of `split_keys`."""
    (B, _, _, heads, D), (rows, columns, d, _) = like.shape, cuts
    x = x.view(B, d, d, heads, rows.tiles, columns.tiles, rows.span, columns.span, D).transpose(5, 6)
    x = _overlapped(_overlapped(x, 6, columns), 4, rows)
    return _from_groups(x, d, rows.before + rows.reach, columns.before + columns.reach, like)


def _overlapped(x: Tensor, dim: int, cut: Cut) -> Tensor:
    """Join tiles (..., tiles, span, ...) that begin `size` places after each other and overlap with the next one."""
    if cut.tiles == 1:
        return x.flatten(dim, dim + 1)
    halo = cut.span - cut.size
    joined = x.new_zeros(*x.shape[:dim], cut.tiles + 1, cut.size, *x.shape[dim + 2 :])
    joined.narrow(dim, 0, cut.tiles).copy_(x.narrow(dim + 1, 0, cut.size))
    joined.narrow(dim, 1, cut.tiles).narrow(dim + 1, 0, halo).add_(x.narrow(dim + 1, cut.size, halo))
    return joined.flatten(dim, dim + 1)
