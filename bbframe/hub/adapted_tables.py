"""A checkpoint's tables of another size: resized, and how, or None when they are no such table."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.layers.positions import resize_line, resize_offsets, resize_positions


def adapt_positions(table: Tensor, shape: torch.Size, grid: tuple[int, int]) -> tuple[Tensor, str] | None:
    """Positions (1, 1 + S * S, C), the class token's first, to `grid`."""
    count = table.shape[1] - 1 if table.ndim == 3 else 0
    side = math.isqrt(max(count, 0))
    if not side or side * side != count or table.shape[::2] != shape[::2]:
        return None
    resized = torch.cat([table[:, :1], resize_positions(table[:, 1:], grid)], dim=1)
    return resized, f"positions of {side} x {side} patches resized to {grid[0]} x {grid[1]}"


def adapt_offsets(table: Tensor, shape: torch.Size, grid: tuple[int, int]) -> tuple[Tensor, str] | None:
    """A table of `RelativeBias` ((2 * S - 1)**2 + 3, heads) to `grid`."""
    count = table.shape[0] - 3 if table.ndim == 2 else 0
    side = (math.isqrt(max(count, 0)) + 1) // 2
    if not side or (2 * side - 1) ** 2 != count or table.shape[1] != shape[1]:
        return None
    resized = torch.cat([resize_offsets(table[:-3], grid, (side, side)), table[-3:]])
    return resized, f"offsets of {side} x {side} patches resized to {grid[0]} x {grid[1]}"


def adapt_line(table: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """A table of `DecomposedPositions` (2 * S - 1, D)."""
    if table.ndim != 2 or table.shape[0] % 2 == 0 or table.shape[1] != shape[1]:
        return None
    given, side = (table.shape[0] + 1) // 2, (shape[0] + 1) // 2
    return resize_line(table, side), f"offsets along {given} patches resized to {side}"


def adapt_kernel(kernel: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """The kernel of a patch embedding (C, num_channels, P, P), bicubically (arXiv:2203.16527, for ViT-H)."""
    if kernel.ndim != 4:
        return None
    resized = F.interpolate(kernel.float(), size=tuple(shape[2:]), mode="bicubic", align_corners=False)
    given, wanted = (f"{size[2]} x {size[3]}" for size in (kernel.shape, shape))
    return resized.to(kernel.dtype), f"patches of {given} pixels resized to {wanted}"
