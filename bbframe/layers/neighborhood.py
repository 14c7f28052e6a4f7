"""Neighbourhood attention (Hassani et al., arXiv:2204.07143), with dilation (Hassani and Shi, arXiv:2209.15001).

Each place of a map attends to the kernel x kernel places around it, in a window that stays inside the map. With
dilation d a window takes every d-th place only: the map falls into d * d groups of places that never meet, each a
map of its own without dilation.

The groups are cut into tiles. The queries of a tile share its keys, those of the tile and of a halo around it, and
what lies outside a query's own window is masked. Half to two thirds of the products are for nothing, but they are
products of matrices, and a key is copied up to four times instead of kernel * kernel times. What the tiles of a map
(B, H, W, heads, D) hold is (B, dilation**2, heads, tiles, places of a tile, D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bbframe.layers.attention import DotProductAttention, record, recorded_attentions, recording
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
        q, kv = _gather(qkv[:, :, :, 0], queries), _gather(qkv[:, :, :, 1:], keys)
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
            record(_spread(probabilities, back, H, W).permute(0, 3, 1, 2, 4))
        return _spread(x, back, H, W)


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


class Cut(NamedTuple):
    """How one side of every group is cut, in places of the group."""

    tiles: int
    size: int  # queries of a tile
    span: int  # keys of a tile
    before: int  # how many places are filled in ahead of the first query
    reach: int  # how many keys of a tile lie ahead of its first query


class Tiling(NamedTuple):
    """How a map is cut."""

    rows: Cut
    columns: Cut
    dilation: int
    groups: int  # along a side, with windows of their own: `dilation`, or 1 if all groups are alike


def tiling(height: int, width: int, kernel: int, dilation: int) -> Tiling:
    """The tiling of a map for windows of `kernel` x `kernel` places."""
    alike = known(height, width) and not any(_extent(side, kernel, dilation) % dilation for side in (height, width))
    groups = 1 if alike else dilation
    rows, columns = (_cut(side, kernel, dilation, groups) for side in (height, width))
    return Tiling(rows, columns, dilation, groups)


def _extent(side: int, kernel: int, dilation: int) -> int:
    """A side that is long enough for its windows: what is shorter is filled up."""
    least = kernel * dilation
    return max(side, least) if known(side) else torch.sym_max(side, least)  # type: ignore[return-value]


def pieces(length: int, size: int) -> int:
    """How many pieces of a size cover a length."""
    return (length + size - 1) // size  # -(-length // size) would be another number in ONNX, which cuts towards 0


def _cut(side: int, kernel: int, dilation: int, groups: int) -> Cut:
    """Cut a side, in one tile if it is short.

    What tiles have too much is filled in half ahead of the queries and half behind. Then the windows at both borders
    lie within their tile's keys, if it has `kernel` queries, or one more where some groups are shorter by one.
    """
    queries, keys = (pieces(length, dilation) for length in (side, _extent(side, kernel, dilation)))
    size = max(kernel + (groups > 1), 7)  # of 7, 8, 10 and 14 the fastest for a kernel of 7 on a CPU
    if known(side):
        if keys <= 2 * size:
            return Cut(1, queries, keys, 0, 0)
        size = pieces(queries, queries // size)
    tiles = pieces(queries, size)
    before = (tiles * size - queries + 1) // 2
    if not known(side):
        tiles = torch.sym_max(tiles, 2)  # type: ignore[assignment]  # a single one would be another program
    return Cut(tiles, size, size + kernel - 1, before, kernel // 2)


class Neighborhoods(NamedTuple):
    """What follows from the size of a map alone, for all blocks with the same kernel and dilation."""

    seen: Tensor  # which keys of its tile each query sees, (groups, tiles, N, M)
    offsets: Tensor  # where their offsets are in a flattened table of biases, (N, M)
    queries: Tensor  # where on a flattened map (H * W) the queries of the tiles lie, (dilation**2, tiles, N)
    keys: Tensor  # and their keys, (dilation**2, tiles, M)
    behind: Tensor  # which keys would lie behind the ends of the map
    back: Tensor  # the places (H * W) among all queries


def neighborhoods(height: int, width: int, kernel: int, dilation: int, device: torch.device) -> Neighborhoods:
    """The neighbourhoods of all places of a map."""
    cuts = tiling(height, width, kernel, dilation)
    rows, row_offsets = _windows_along(cuts.rows, height, kernel, cuts, device)
    columns, column_offsets = _windows_along(cuts.columns, width, kernel, cuts, device)
    seen = rows[:, None, :, None, :, None, :, None] & columns[None, :, None, :, None, :, None, :]
    seen = seen.flatten(6, 7).flatten(4, 5).flatten(2, 3).flatten(0, 1)
    offsets = row_offsets[:, None, :, None] * (2 * kernel - 1) + column_offsets[None, :, None, :]
    offsets = offsets.flatten(2, 3).flatten(0, 1)
    queries, _ = _places(cuts, False, height, width, device)
    keys, behind = _places(cuts, True, height, width, device)
    return Neighborhoods(seen, offsets, queries, keys, behind, _back(cuts, height, width, device))


def _windows_along(cut: Cut, side: int, kernel: int, cuts: Tiling, device: torch.device) -> tuple[Tensor, Tensor]:
    """One side of `neighborhoods`: (groups, tiles, size, span) and (size, span)."""
    group = torch.arange(cuts.groups, device=device)[:, None, None, None]
    keys = (_extent(side, kernel, cuts.dilation) - group + cuts.dilation - 1) // cuts.dilation
    start = torch.arange(cut.tiles, device=device)[:, None, None] * cut.size - cut.before
    query = torch.arange(cut.size, device=device)[:, None]
    key = torch.arange(cut.span, device=device) - cut.reach
    offsets = (key - query + kernel - 1).clamp(0, 2 * kernel - 2)
    query, key = start + query, start + key
    first = torch.minimum((query - kernel // 2).clamp(min=0), keys - kernel)
    filled_in = (query < 0) | (query >= keys)  # sees everything: no row of scores is empty
    return (key >= first) & (key < first + kernel) | filled_in, offsets


def _places(cuts: Tiling, keys: bool, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the queries or the keys of all tiles lie on a map, and which of them behind its ends."""
    rows, columns = (_places_along(cut, cuts.dilation, keys, device) for cut in (cuts.rows, cuts.columns))
    rows, columns = rows[:, None, :, None, :, None], columns[None, :, None, :, None, :]
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    behind = (rows >= height) | (columns >= width)
    place, behind = (x.flatten(4, 5).flatten(2, 3).flatten(0, 1) for x in (place, behind))
    return place, behind


def _places_along(cut: Cut, dilation: int, keys: bool, device: torch.device) -> Tensor:
    """One side of `_places`: (dilation, tiles, places of a tile), also beyond the side's ends."""
    count, ahead = (cut.span, cut.before + cut.reach) if keys else (cut.size, cut.before)
    place = torch.arange(cut.tiles, device=device)[:, None] * cut.size + torch.arange(count, device=device) - ahead
    return place * dilation + torch.arange(dilation, device=device)[:, None, None]


def _back(cuts: Tiling, height: int, width: int, device: torch.device) -> Tensor:
    """Where the places (H * W) of a map are among the queries of its tiles."""
    rows, columns, dilation, _ = cuts
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    group = row % dilation * dilation + column % dilation
    row, column = row // dilation + rows.before, column // dilation + columns.before
    tile = row // rows.size * columns.tiles + column // columns.size
    inside = row % rows.size * columns.size + column % columns.size
    return ((group * (rows.tiles * columns.tiles) + tile) * (rows.size * columns.size) + inside).flatten()


def _gather(x: Tensor, place: Tensor) -> Tensor:
    """What lies in the tiles of a map (B, H, W, ..., D), as (B, dilation**2, tiles, places of a tile, ..., D)."""
    return x.flatten(1, 2).index_select(1, place.flatten()).unflatten(1, place.shape)


def _spread(x: Tensor, back: Tensor, height: int, width: int) -> Tensor:
    """Queries of tiles (B, dilation**2, heads, tiles, N, D) back in their map."""
    return x.movedim(2, 4).flatten(1, 3).index_select(1, back).unflatten(1, (height, width))
