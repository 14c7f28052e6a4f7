"""A checkpoint's tables of another size: resized, and how, or None when they are no such table."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.layers.positions import resize_line, resize_offsets, resize_positions

Grid = tuple[int, int]


def adapt_positions(
    table: Tensor, shape: torch.Size, grid: Grid, given: Grid | None = None, tokens: int = 1, antialias: bool = False
) -> tuple[Tensor, str] | None:
    """Positions (1, tokens + h * w, C), those of class tokens first, from the `given` grid to `grid`.

    A table that does not have the size of `given`, or of which that is not known, belongs to a square.
    """
    count = table.shape[1] - tokens if table.ndim == 3 else 0
    given = _source(table, shape, given, lambda grid: grid[0] * grid[1], math.isqrt(max(count, 0)), count)
    if given is None or given == grid or table.shape[::2] != shape[::2]:
        return None
    resized = resize_positions(table[:, tokens:], grid, given, antialias)
    resized = torch.cat([table[:, :tokens], resized], dim=1)
    return resized, f"positions of {given[0]} x {given[1]} patches resized to {grid[0]} x {grid[1]}"


def adapt_offsets(
    table: Tensor, shape: torch.Size, grid: Grid, given: Grid | None = None, tokens: int = 3, mode: str = "bilinear"
) -> tuple[Tensor, str] | None:
    """A table ((2 * h - 1) * (2 * w - 1) + tokens, heads) of the offsets in a grid; otherwise as above."""
    count = table.shape[0] - tokens if table.ndim == 2 else 0
    side = (math.isqrt(max(count, 0)) + 1) // 2
    given = _source(table, shape, given, lambda grid: (2 * grid[0] - 1) * (2 * grid[1] - 1), side, count)
    if given is None or given == grid or table.shape[1] != shape[1]:
        return None
    kept = table.shape[0] - tokens
    resized = torch.cat([resize_offsets(table[:kept], grid, given, mode), table[kept:]])
    return resized, f"offsets of {given[0]} x {given[1]} patches resized to {grid[0]} x {grid[1]}"


def _source(
    table: Tensor, shape: torch.Size, given: Grid | None, size: Callable[[Grid], int], side: int, count: int
) -> Grid | None:
    """The grid of a table with `count` rows: the given one or, for another number of rows than ours, a square."""
    if given is not None and size(given) == count > 0:
        return given
    return (side, side) if table.shape != shape and side > 0 and size((side, side)) == count else None


def adapt_line(table: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """A table of `DecomposedPositions` (2 * S - 1, D)."""
    if table.ndim != 2 or table.shape[0] % 2 == 0 or table.shape == shape or table.shape[1] != shape[1]:
        return None
    given, side = (table.shape[0] + 1) // 2, (shape[0] + 1) // 2
    return resize_line(table, side), f"offsets along {given} patches resized to {side}"


def adapt_kernel(kernel: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """The kernel of a patch embedding (C, num_channels, P, P), bicubically (arXiv:2203.16527, for ViT-H)."""
    if kernel.ndim != 4 or kernel.shape == shape:
        return None
    resized = F.interpolate(kernel.float(), size=tuple(shape[2:]), mode="bicubic", align_corners=False)
    given, wanted = (f"{size[2]} x {size[3]}" for size in (kernel.shape, shape))
    return resized.to(kernel.dtype), f"patches of {given} pixels resized to {wanted}"
