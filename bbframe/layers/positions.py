"""Position tables at any size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.layers.windows import relative_index


def patch_grid(image_size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    """The rows and columns of patches in an image of a size (a side, or height and width) in pixels."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height // patch, width // patch


def resize_positions(
    table: Tensor, grid: tuple[int, int], given: tuple[int, int] | None = None, antialias: bool = False
) -> Tensor:
    """Resize absolute positions (1, h * w, C) of a `given` grid, by default a square, to (1, H * W, C), bicubically.

    With `antialias` the kernel is Keys' (a = -0.5, not -0.75) and widens where the grid shrinks, as in Pillow.
    By size, never by a scale factor, and in float32: a half-precision result would shift the positions. At the size
    of the table this is the identity, so that no branch depends on the size of the input.
    """
    side = math.isqrt(table.shape[1])
    image = table.unflatten(1, given or (side, side)).permute(0, 3, 1, 2)
    if antialias and torch.compiler.is_exporting():  # OpenVINO's kernel is another one near the borders
        rows, columns = (smooth_weights(n, m, table.device) for n, m in zip(grid, image.shape[2:], strict=True))
        resized = F.linear(F.linear(image.float(), columns).mT, rows).mT
    else:
        resized = F.interpolate(image.float(), size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return resized.to(table.dtype).flatten(2).transpose(1, 2)


def smooth_weights(side: int, given: int, device: torch.device) -> Tensor:
    """How much of each of `given` places along a side is in each of `side`, (side, given), with antialias as above."""
    scale = given / (torch.ones((), device=device) * side)  # in places of the given side
    centre = (torch.arange(side, device=device) + 0.5) * scale
    x = (torch.arange(given, device=device) + 0.5 - centre[:, None]).abs() / scale.clamp(min=1)
    near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)  # Keys' kernel, a = -0.5
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


def resize_offsets(table: Tensor, grid: tuple[int, int], given: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize a table ((2h - 1) * (2w - 1), heads) of the offsets in a `given` grid to those in another.

    As above: by size, in float32, the identity at the size of the table.
    """
    image = table.t().unflatten(1, (2 * given[0] - 1, 2 * given[1] - 1))[None]
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    resized = F.interpolate(image.float(), size=size, mode=mode, align_corners=False).to(table.dtype)
    return resized[0].flatten(1).t()


def resize_line(table: Tensor, side: int) -> Tensor:
    """Resize a table (2 * S - 1, D) of the offsets along a side to (2 * side - 1, D), linearly; else as above."""
    resized = F.interpolate(table.t()[None].float(), size=2 * side - 1, mode="linear", align_corners=False)
    return resized[0].t().to(table.dtype)


class RelativeBias(nn.Module):
    """What each head adds to the scores of a class token and N patches, by their offset: (heads, 1 + N, 1 + N).

    The table of a grid ends with three rows for the class token: asking, asked, and asking itself. `index` is the
    `token_index` of the grid at hand.
    """

    def __init__(self, grid: tuple[int, int], num_heads: int):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, num_heads))

    def forward(self, grid: tuple[int, int], index: Tensor) -> Tensor:
        table = torch.cat([self.table[-3:], resize_offsets(self.table[:-3], grid, self.grid)])
        return table.t().index_select(1, index.flatten()).unflatten(1, index.shape)


def token_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    """For each pair of tokens its row, (1 + N, 1 + N), in a table of `grid` whose last three rows come first."""
    index = F.pad(relative_index(*grid, device) + 3, (0, 0, 1, 0), value=0)
    index = F.pad(index, (1, 0), value=1)
    index[0, 0] = 2
    return index


class DecomposedPositions(nn.Module):
    """Tables of vectors by the offset in rows and by that in columns (Li et al., "MViTv2", arXiv:2112.01526).

    A query adds its products with both to the scores: k is scaled there, they are not. Here they become further
    dimensions of the query, in which a key has a one for its row and one for its column, so that no bias (N, N) a
    query is made. Queries, keys and values (..., H * W, D) of a `grid` become (..., H * W, D + H + W), the values with
    zeros.
    """

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.zeros(2 * side - 1, width)) for side in grid)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        H, W = grid
        at = (q * q.shape[-1] ** 0.5).unflatten(-2, grid)  # attention will scale it
        rows = torch.einsum("...hwd,hkd->...hwk", at, self._between(self.rows, H))
        columns = torch.einsum("...hwd,wkd->...hwk", at, self._between(self.columns, W))
        row = torch.eye(H, dtype=k.dtype, device=k.device)[:, None].expand(-1, W, -1)
        column = torch.eye(W, dtype=k.dtype, device=k.device).expand(H, -1, -1)
        place = torch.cat([row, column], dim=-1).flatten(0, 1).expand(*k.shape[:-1], -1)
        q = torch.cat([q, torch.cat([rows, columns], dim=-1).flatten(-3, -2)], dim=-1)
        return q, torch.cat([k, place], dim=-1), F.pad(v, (0, H + W))

    def _between(self, table: Tensor, side: int) -> Tensor:
        """The vectors for each pair of places along a side: (side, side, D)."""
        place = torch.arange(side, device=table.device)
        return resize_line(table, side)[place[:, None] - place + side - 1]
