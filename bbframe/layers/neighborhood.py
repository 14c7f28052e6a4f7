"""Neighbourhood attention (Hassani et al., arXiv:2204.07143), with dilation (Hassani and Shi, arXiv:2209.15001).

Each place of a map attends to the kernel x kernel places around it, in a window that stays inside the map. With
dilation d a window takes every d-th place only: the map falls into d * d groups of places that never meet, each a
map of its own without dilation.

The groups are cut into tiles. The queries of a tile share its keys, those of the tile and of a halo around it, and
what lies outside a query's own window is masked. Half to two thirds of the products are for nothing, but they are
products of matrices, and a key is copied up to four times instead of kernel * kernel times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bbframe.layers.attention import attend, record, recorded_attentions, recording
from bbframe.layers.windows import known


class NeighborhoodAttention(nn.Module):
    """Multi-head attention of each place to its neighbourhood; maps (B, H, W, C) of any size.

    A map smaller than kernel * dilation is filled up with zeros, which are neighbours like others. `seen` and
    `offsets` are those of `neighborhoods`.
    """

    def __init__(
        self, channels: int, num_heads: int, kernel: int, dilation: int, qkv_bias: bool, attention_dropout: float
    ):
        super().__init__()
        self.num_heads, self.kernel, self.dilation = num_heads, kernel, dilation
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel - 1, 2 * kernel - 1))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, seen: Tensor, offsets: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        qkv = self.qkv(fill_up_to_windows(x, self.kernel, self.dilation))
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        dropout = self.attention_dropout if self.training else 0.0
        x = neighborhood_attention(q[:, :H, :W], k, v, self.rpb, self.dilation, seen, offsets, dropout)
        return self.proj(x.flatten(-2))


def fill_up_to_windows(x: Tensor, kernel: int, dilation: int) -> Tensor:
    """Fill a map (B, H, W, C) up with zeros, on the right and at the bottom, to sides of at least kernel * dilation."""
    _, H, W, _ = x.shape
    height, width = _extent(H, kernel, dilation), _extent(W, kernel, dilation)
    if known(H, W):
        return F.pad(x, (0, 0, 0, width - W, 0, height - H)) if (height, width) != (H, W) else x
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    x = x.index_select(1, row.clamp(max=H - 1)).index_select(2, column.clamp(max=W - 1))
    return x * ((row < H)[:, None] & (column < W))[:, :, None]


def neighborhoods(height: int, width: int, kernel: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What follows from the size of a map alone, for all blocks with the same kernel and dilation.

    Which keys of its tile each query sees, (groups, tiles, N, M) of bool with N queries and M keys a tile, and the
    places of their offsets in a flattened table of biases, (N, M).
    """
    tiling = _tiling(height, width, kernel, dilation)
    rows, row_offsets = _windows_along(tiling.rows, _extent(height, kernel, dilation), kernel, tiling, device)
    columns, column_offsets = _windows_along(tiling.columns, _extent(width, kernel, dilation), kernel, tiling, device)
    seen = rows[:, None, :, None, :, None, :, None] & columns[None, :, None, :, None, :, None, :]
    offsets = row_offsets[:, None, :, None] * (2 * kernel - 1) + column_offsets[None, :, None, :]
    return seen.flatten(6, 7).flatten(4, 5).flatten(2, 3).flatten(0, 1), offsets.flatten(2, 3).flatten(0, 1)


def neighborhood_attention(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor, dilation: int, seen: Tensor, offsets: Tensor, dropout: float = 0.0
) -> Tensor:
    """Attend from each query of a map (B, H, W, heads, D) to its neighbours among the keys and values.

    `k` and `v` are of the same map, filled up to kernel * dilation where it is smaller. `rpb`, (heads, 2 * kernel - 1,
    2 * kernel - 1), holds the bias of each offset of a key from its query, in places of a group; `seen` and `offsets`
    are those of `neighborhoods`. What is recorded is (B, heads, H, W, kernel * kernel), a window row by row.
    """
    kernel = (rpb.shape[-1] + 1) // 2
    tiling = _tiling(q.shape[1], q.shape[2], kernel, dilation)
    table = rpb.to(q.dtype).flatten(1)[:, offsets]
    if q.device.type == "cpu" and not (dropout or recording() or torch.compiler.is_compiling()):
        return _OnCpu.apply(q, k, v, table, seen, tiling)
    bias = _bias(table, seen)
    with recorded_attentions() if recording() else nullcontext() as of_tiles:
        x = _attend(_gather(q, tiling, False), _gather(k, tiling, True), _gather(v, tiling, True), bias, dropout)
    if of_tiles is not None:
        record(_of_windows(of_tiles[0], seen, kernel, tiling, q))
    return _spread(x, tiling, q)


def _bias(table: Tensor, seen: Tensor) -> Tensor:
    """What is added to the scores, (groups, heads, tiles, N, M)."""
    return torch.where(seen[:, None], table[:, None], float("-inf"))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend from the queries of tiles, (B, dilation**2, heads, tiles, N, D), to the keys of the same tiles."""
    shape, tiles = q.shape, bias.flatten(0, 2)
    q, k, v = (x.reshape(-1, tiles.shape[0], *x.shape[-2:]) for x in (q, k, v))
    return attend(q, k, v, tiles, dropout).reshape(shape)


# how a map is cut


class _Cut(NamedTuple):
    """How one side of every group is cut, in places of the group."""

    tiles: int
    size: int  # queries of a tile
    span: int  # keys of a tile
    before: int  # how many places are filled in ahead of the first query
    reach: int  # how many keys of a tile lie ahead of its first query


class _Tiling(NamedTuple):
    rows: _Cut
    columns: _Cut
    dilation: int
    groups: int  # along a side, with windows of their own: `dilation`, or 1 if all groups are alike


def _tiling(height: int, width: int, kernel: int, dilation: int) -> _Tiling:
    extents = _extent(height, kernel, dilation), _extent(width, kernel, dilation)
    alike = known(height, width) and not any(extent % dilation for extent in extents)
    groups = 1 if alike else dilation
    rows, columns = (
        _cut(length, extent, kernel, dilation, groups)
        for length, extent in zip((height, width), extents, strict=True)
    )
    return _Tiling(rows, columns, dilation, groups)


def _extent(length: int, kernel: int, dilation: int) -> int:
    """The side of a map that is large enough for its windows."""
    least = kernel * dilation
    return max(length, least) if known(length) else torch.sym_max(length, least)


def _cut(length: int, extent: int, kernel: int, dilation: int, groups: int) -> _Cut:
    """Cut a side of `length` queries and `extent` keys.

    What tiles have too much is filled in half ahead of the queries and half behind. Then the windows at both borders
    lie within their tile's keys, if it has `kernel` queries, or one more where some groups are shorter by one.
    """
    queries, keys = -(-length // dilation), -(-extent // dilation)
    size = max(kernel + (groups > 1), 7)  # of 7, 8, 10 and 14 the fastest for a kernel of 7 on a CPU
    if not known(length):
        tiles = -(-queries // size)
    elif keys <= 2 * size:
        return _Cut(1, queries, keys, 0, 0)
    else:
        tiles = queries // size
        size = -(-queries // tiles)
    before = -(-(tiles * size - queries) // 2)
    if not known(length):
        tiles = torch.sym_max(tiles, 2)  # a single one would be another program
    return _Cut(tiles, size, size + kernel - 1, before, kernel // 2)


def _windows_along(
    cut: _Cut, extent: int, kernel: int, tiling: _Tiling, device: torch.device
) -> tuple[Tensor, Tensor]:
    """One side of `neighborhoods`: (groups, tiles, size, span) and (size, span)."""
    group = torch.arange(tiling.groups, device=device)[:, None, None, None]
    keys = (extent - group + tiling.dilation - 1) // tiling.dilation
    start = torch.arange(cut.tiles, device=device)[:, None, None] * cut.size - cut.before
    query = torch.arange(cut.size, device=device)[:, None]
    key = torch.arange(cut.span, device=device) - cut.reach
    offsets = (key - query + kernel - 1).clamp(0, 2 * kernel - 2)
    query, key = start + query, start + key
    first = torch.minimum((query - kernel // 2).clamp(min=0), keys - kernel)
    filled_in = (query < 0) | (query >= keys)  # sees everything: no row of scores is empty
    return (key >= first) & (key < first + kernel) | filled_in, offsets


# everywhere: what tiles hold is gathered by its place


def _places(cut: _Cut, length: int, dilation: int, keys: bool, device: torch.device) -> Tensor:
    """Where what a tile holds lies along a side, (dilation, tiles, places of a tile); never beyond its ends."""
    count, ahead = (cut.span, cut.before + cut.reach) if keys else (cut.size, cut.before)
    place = torch.arange(cut.tiles, device=device)[:, None] * cut.size + torch.arange(count, device=device) - ahead
    return (place * dilation + torch.arange(dilation, device=device)[:, None, None]).clamp(0, length - 1)


def _gather(x: Tensor, tiling: _Tiling, keys: bool) -> Tensor:
    """(B, H, W, heads, D) -> (B, dilation**2, heads, tiles, places of a tile, D)."""
    rows = _places(tiling.rows, x.shape[1], tiling.dilation, keys, x.device)
    columns = _places(tiling.columns, x.shape[2], tiling.dilation, keys, x.device)
    place = rows[:, None, :, None, :, None] * x.shape[2] + columns[None, :, None, :, None, :]
    place = place.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    x = x.flatten(1, 2).index_select(1, place.flatten()).unflatten(1, place.shape)
    return x.permute(0, 1, 4, 2, 3, 5)


def _spread(x: Tensor, tiling: _Tiling, like: Tensor) -> Tensor:
    """Undo `_gather`: (B, dilation**2, heads, tiles, N, D) -> (B, H, W, heads, D)."""
    (_, H, W, *_), (rows, columns, dilation, _) = like.shape, tiling
    row, column = torch.arange(H, device=x.device)[:, None], torch.arange(W, device=x.device)
    group = row % dilation * dilation + column % dilation
    row, column = row // dilation + rows.before, column // dilation + columns.before
    tile = row // rows.size * columns.tiles + column // columns.size
    inside = row % rows.size * columns.size + column % columns.size
    place = (group * (rows.tiles * columns.tiles) + tile) * (rows.size * columns.size) + inside
    x = x.permute(0, 1, 3, 4, 2, 5).flatten(1, 3)
    return x.index_select(1, place.flatten()).unflatten(1, (H, W))


def _of_windows(x: Tensor, seen: Tensor, kernel: int, tiling: _Tiling, like: Tensor) -> Tensor:
    """The probabilities of tiles (..., heads * tiles, N, M) as those of windows, (B, heads, H, W, kernel * kernel)."""
    B, _, _, heads, _ = like.shape
    x = x.reshape(B, tiling.dilation**2, heads, *seen.shape[1:])
    window = seen.int().argsort(-1, descending=True, stable=True)[..., : kernel**2]
    x = x.gather(-1, window[:, None].expand(*x.shape[:-1], -1))
    return _spread(x, tiling, like).permute(0, 3, 1, 2, 4)


# on a CPU: tiles are views of a few images at a time, which one copy makes dense, and the gradient is written out


class _OnCpu(torch.autograd.Function):
    """`_gather`, `_attend` and `_spread` in half the time and with less memory, for what trains on a CPU.

    The fused kernel has no gradient for a bias there, and what PyTorch does instead keeps several copies of all
    scores. This keeps none, and computes those of a few images again.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, seen: Tensor, tiling: _Tiling) -> Tensor:
        bias = _bias(table.detach(), seen)
        parts = []
        for a, b, c in _some_images(bias, tiling, q, k, v):
            x = _attend(_tiles(a, tiling), _halos(b, tiling), _halos(c, tiling), bias)
            parts.append(_from_tiles(x, tiling, a))
        x = torch.cat(parts)
        ctx.save_for_backward(q, k, v, x, bias)
        ctx.tiling = tiling
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *saved, bias = ctx.saved_tensors
        tiling = ctx.tiling
        scale = grad.shape[-1] ** -0.5
        bias_grad = torch.zeros_like(bias, dtype=torch.float32)
        grads: tuple[list[Tensor], ...] = ([], [], [])
        for q, k, v, x, g in _some_images(bias, tiling, *saved, grad):
            total = _tiles((x * g).sum(-1, keepdim=True), tiling).flatten(0, 3)
            queries, out = (_tiles(t, tiling).flatten(0, 3) for t in (q * scale, g))
            keys, values = (_halos(t, tiling).flatten(0, 3) for t in (k, v))
            scores = torch.bmm(queries, keys.mT)
            scores.view(-1, *bias.shape).add_(bias)
            p = scores.softmax(-1)
            values_grad = torch.bmm(p.mT, out)
            scores = torch.bmm(out, values.mT, out=scores).sub_(total).mul_(p)  # their gradient
            for image in scores.view(-1, *bias.shape):
                bias_grad += image
            queries_grad = torch.bmm(scores, keys).mul_(scale)
            keys_grad = torch.bmm(scores.mT, queries)
            grads[0].append(_from_tiles(queries_grad, tiling, q))
            grads[1].append(_from_halos(keys_grad, tiling, k))
            grads[2].append(_from_halos(values_grad, tiling, v))
        table_grad = bias_grad.sum((0, 2)).to(bias.dtype)
        return (*map(torch.cat, grads), table_grad, None, None)


def _some_images(bias: Tensor, tiling: _Tiling, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few images at a time, with about a million scores: these stay in the cache."""
    scores = bias.numel() // len(bias) * tiling.dilation**2
    return zip(*(x.split(max(1, 2**20 // scores)) for x in maps), strict=True)


def _groups(x: Tensor, tiling: _Tiling, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """(B, H, W, heads, D) -> (B, dilation, dilation, heads, height, width, D): a map for each group.

    Each begins so many places ahead of the first, and is so long; filled in are zeros.
    """
    d = tiling.dilation
    (top, height), (left, width) = rows, columns
    bottom, right = -x.shape[1] % d, -x.shape[2] % d
    if bottom or right:
        x = F.pad(x, (0, 0, 0, 0, 0, right, 0, bottom))
    x = x.unflatten(1, (-1, d)).unflatten(3, (-1, d)).permute(0, 2, 4, 5, 1, 3, 6)
    bottom, right = height - top - x.shape[4], width - left - x.shape[5]
    return F.pad(x, (0, 0, left, right, top, bottom)) if any((top, bottom, left, right)) else x


def _from_groups(x: Tensor, tiling: _Tiling, top: int, left: int, like: Tensor) -> Tensor:
    """Undo `_groups`."""
    (_, H, W, *_), d = like.shape, tiling.dilation
    x = x[:, :, :, :, top : top - (-H // d), left : left - (-W // d)].permute(0, 4, 1, 5, 2, 3, 6)
    return x.flatten(3, 4).flatten(1, 2)[:, :H, :W]


def _tiles(x: Tensor, tiling: _Tiling) -> Tensor:
    """The queries of all tiles: (B, H, W, heads, D) -> (B, dilation**2, heads, tiles, N, D)."""
    rows, columns, *_ = tiling
    x = _groups(x, tiling, (rows.before, rows.tiles * rows.size), (columns.before, columns.tiles * columns.size))
    x = x.unflatten(5, (columns.tiles, columns.size)).unflatten(4, (rows.tiles, rows.size)).transpose(5, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(1, 2)


def _from_tiles(x: Tensor, tiling: _Tiling, like: Tensor) -> Tensor:
    """Undo `_tiles`."""
    (B, _, _, heads, D), (rows, columns, d, _) = like.shape, tiling
    x = x.reshape(B, d, d, heads, rows.tiles, columns.tiles, rows.size, columns.size, D).transpose(5, 6)
    return _from_groups(x.flatten(6, 7).flatten(4, 5), tiling, rows.before, columns.before, like)


def _halos(x: Tensor, tiling: _Tiling) -> Tensor:
    """The keys of all tiles: (B, H, W, heads, D) -> (B, dilation**2, heads, tiles, M, D)."""
    top, left, *lengths = (c.before + c.reach for c in tiling[:2])
    lengths = [(c.tiles - 1) * c.size + c.span for c in tiling[:2]]
    x = _groups(x, tiling, (top, lengths[0]), (left, lengths[1]))
    x = x.unfold(4, tiling.rows.span, tiling.rows.size).unfold(5, tiling.columns.span, tiling.columns.size)
    return x.movedim(6, -1).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def _from_halos(x: Tensor, tiling: _Tiling, like: Tensor) -> Tensor:
    """The gradient of `_halos`: each place sums over the tiles that hold it."""
    (B, _, _, heads, D), (rows, columns, d, _) = like.shape, tiling
    x = x.view(B, d, d, heads, rows.tiles, columns.tiles, rows.span, columns.span, D).transpose(5, 6)
    x = _overlapped(_overlapped(x, 6, columns), 4, rows)
    return _from_groups(x, tiling, rows.before + rows.reach, columns.before + columns.reach, like)


def _overlapped(x: Tensor, dim: int, cut: _Cut) -> Tensor:
    """Join tiles (..., tiles, span, ...) that begin `size` places after each other, and overlap in the next alone."""
    if cut.tiles == 1:
        return x.flatten(dim, dim + 1)
    joined = x.new_zeros(*x.shape[:dim], cut.tiles + 1, cut.size, *x.shape[dim + 2 :])
    joined.narrow(dim, 0, cut.tiles).copy_(x.narrow(dim + 1, 0, cut.size))
    halo = x.narrow(dim + 1, cut.size, cut.span - cut.size)
    joined.narrow(dim, 1, cut.tiles).narrow(dim + 1, 0, cut.span - cut.size).add_(halo)
    return joined.flatten(dim, dim + 1)
