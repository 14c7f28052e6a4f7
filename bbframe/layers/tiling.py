"""Maps in tiles whose keys reach beyond them, for attention to neighbourhoods.

With dilation d a map falls into d * d groups of places, each a map of its own. A side of every group is cut into
tiles of `size` queries and `span` keys, the queries' own places and a halo around them. A map is (B, H, W, heads, D),
its tiles (B, dilation**2, heads, tiles, places of a tile, D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bbframe.layers.windows import known


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
    alike = known(height, width) and not any(extent(side, kernel, dilation) % dilation for side in (height, width))
    groups = 1 if alike else dilation
    rows, columns = (_cut(side, kernel, dilation, groups) for side in (height, width))
    return Tiling(rows, columns, dilation, groups)


def extent(side: int, kernel: int, dilation: int) -> int:
    """A side that is long enough for its windows: what is shorter is filled up."""
    return _at_least(kernel * dilation, side)


def _at_least(least: int, count: int) -> int:
    """The larger of two; a compiler that works for any size does not ask which."""
    return max(count, least) if known(count) else torch.sym_max(count, least)  # type: ignore[return-value]


def pieces(length: int, size: int) -> int:
    """How many pieces of a size cover a length."""
    return (length + size - 1) // size  # -(-length // size) would be another number in ONNX, which cuts towards 0


def _cut(side: int, kernel: int, dilation: int, groups: int) -> Cut:
    """Cut a side, in one tile if it is short.

    What tiles have too much is filled in half ahead of the queries and half behind. Then the windows at both borders
    lie within their tile's keys, if it has `kernel` queries, or one more where some groups are shorter by one.
    """
    queries, keys = (pieces(length, dilation) for length in (side, extent(side, kernel, dilation)))
    size = max(kernel + (groups > 1), 7)  # of 7, 8, 10 and 14 the fastest for a kernel of 7 on a CPU
    if known(side):
        if keys <= 2 * size:
            return Cut(1, queries, keys, 0, 0)
        size = pieces(queries, queries // size)
    tiles = pieces(queries, size)
    before = (tiles * size - queries + 1) // 2
    if not known(side):
        tiles = _at_least(2, tiles)  # a single one would be another program
    return Cut(tiles, size, size + kernel - 1, before, kernel // 2)


# anywhere: what tiles hold is gathered by its place


class Places(NamedTuple):
    """Where on a flattened map (H * W) lies what the tiles hold, and the other way around."""

    queries: Tensor  # (dilation**2, tiles, N)
    keys: Tensor  # (dilation**2, tiles, M)
    behind: Tensor  # which keys would lie behind the ends of the map
    back: Tensor  # the places (H * W) among all queries


def places(cuts: Tiling, height: int, width: int, device: torch.device) -> Places:
    """The places of a map's tiles."""
    queries, _ = _places(cuts, False, height, width, device)
    keys, behind = _places(cuts, True, height, width, device)
    rows, columns, dilation, _ = cuts
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    group = row % dilation * dilation + column % dilation
    row, column = row // dilation + rows.before, column // dilation + columns.before
    tile = row // rows.size * columns.tiles + column // columns.size
    inside = row % rows.size * columns.size + column % columns.size
    back = (group * (rows.tiles * columns.tiles) + tile) * (rows.size * columns.size) + inside
    return Places(queries, keys, behind, back.flatten())


def _places(cuts: Tiling, keys: bool, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The queries or the keys of `Places`, and which lie behind the ends of the map."""
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


def gather(x: Tensor, place: Tensor) -> Tensor:
    """What lies in the tiles of a map (B, H, W, ..., D), as (B, dilation**2, tiles, places of a tile, ..., D)."""
    return x.flatten(1, 2).index_select(1, place.flatten()).unflatten(1, place.shape)


def spread(x: Tensor, back: Tensor, height: int, width: int) -> Tensor:
    """Queries of tiles (B, dilation**2, heads, tiles, N, D) back in their map."""
    return x.movedim(2, 4).flatten(1, 3).index_select(1, back).unflatten(1, (height, width))
