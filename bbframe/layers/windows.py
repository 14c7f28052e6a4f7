"""Windows of a map (Liu et al., "Swin Transformer", arXiv:2103.14030), and positions inside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def windows(x: Tensor, size: int) -> Tensor:
    """Cut a map into square windows: (B, H, W, C) -> (B, windows, size**2, C), row by row.

    Zeros fill the map up on the right and at the bottom where a side is no multiple of `size`.
    """
    B, H, W, C = x.shape
    bottom, right = -H % size, -W % size
    if torch.compiler.is_compiling() or bottom or right:  # no branch on a size that a compiler would have to guard
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    rows, columns = (H + bottom) // size, (W + right) // size
    x = x.view(B, rows, size, columns, size, C).transpose(2, 3)
    return x.reshape(B, rows * columns, size * size, C)


def unwindow(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """Undo `windows`: (B, windows, size**2, C) -> (B, height, width, C), without what was filled up."""
    B, _, _, C = x.shape
    rows, columns = -(-height // size), -(-width // size)
    x = x.view(B, rows, columns, size, size, C).transpose(2, 3).reshape(B, rows * size, columns * size, C)
    return x[:, :height, :width]


def shift_mask(height: int, width: int, size: int, shift: int, like: Tensor) -> Tensor:
    """What to add to the scores inside each window of a map rolled by -`shift`: (windows, 1, size**2, size**2).

    0 between places that were neighbours before the map was rolled, -100 between the others; `like` gives device and
    dtype.
    """
    H, W = height + -height % size, width + -width % size
    rows, columns = (torch.arange(side, device=like.device) for side in (H, W))
    regions = 3 * _region(rows, H, size, shift)[:, None] + _region(columns, W, size, shift)
    of_window = windows(regions[None, :, :, None], size)[0, :, :, 0]
    apart = of_window[:, None, :] != of_window[:, :, None]
    return torch.where(apart, -100.0, 0.0).to(like.dtype).unsqueeze(1)


def _region(place: Tensor, side: int, size: int, shift: int) -> Tensor:
    """0 for what stays inside its window, 1 and 2 for the two parts of the last one."""
    return (place >= side - size).long() + (place >= side - shift).long()


def relative_index(height: int, width: int, device: torch.device) -> Tensor:
    """For each pair of places in a grid, (N, N) with N = height * width, where a table holds their offset.

    The table lists the (2 * height - 1) * (2 * width - 1) offsets of query minus key, row by row.
    """
    row = torch.arange(height, device=device)
    column = torch.arange(width, device=device)
    rows = (row[:, None] - row + height - 1) * (2 * width - 1)
    columns = column[:, None] - column + width - 1
    index = rows[:, None, :, None] + columns[None, :, None, :]
    return index.reshape(height * width, height * width)
