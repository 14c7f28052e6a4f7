"""Windows of a map (Liu et al., "Swin Transformer", arXiv:2103.14030), and positions inside them.

A compiler that works for any size may not ask whether a side needs filling up, or whether one window covers it: each
answer would be another program. There everything is gathered by computed places, in two windows a side at least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fill_up(x: Tensor, size: int) -> Tensor:
    """Fill a map (B, H, W, C) up with zeros, on the right and at the bottom, to sides that are multiples of `size`."""
    _, H, W, _ = x.shape
    height, width = _filled(H, size), _filled(W, size)
    if known(H, W):
        return F.pad(x, (0, 0, 0, width - W, 0, height - H)) if (height, width) != (H, W) else x
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    x = x.index_select(1, row.clamp(max=H - 1)).index_select(2, column.clamp(max=W - 1))
    return x * ((row < H)[:, None] & (column < W))[:, :, None]


def repeat_edges(x: Tensor, size: int) -> Tensor:
    """Fill a map (B, H, W, C) up as `fill_up` does, with copies of its last column and row."""
    _, H, W, _ = x.shape
    height, width = _filled(H, size), _filled(W, size)
    if known(H, W) and (height, width) == (H, W):
        return x
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    return x.index_select(1, row.clamp(max=H - 1)).index_select(2, column.clamp(max=W - 1))


def windows(x: Tensor, size: int, shift: int = 0) -> Tensor:
    """Cut a map into square windows: (B, H, W, C) -> (B, windows, size**2, C), row by row.

    The map is filled up with zeros to multiples of `size` first, then rolled by -`shift`.
    """
    B, H, W, C = x.shape
    rows, columns = _windows_along(H, size), _windows_along(W, size)
    if known(H, W):
        x = fill_up(x, size)
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        x = x.view(B, rows, size, columns, size, C).transpose(2, 3)
        return x.reshape(B, rows * columns, size * size, C)
    row, column = _places(rows, columns, size, x.device)
    row, column = _rolled(row, shift, H, size), _rolled(column, shift, W, size)
    origin = (row.clamp(max=H - 1) * W + column.clamp(max=W - 1)).flatten()
    x = x.flatten(1, 2).index_select(1, origin) * ((row < H) & (column < W)).flatten()[:, None]
    return x.unflatten(1, (rows * columns, size * size))


def unwindow(x: Tensor, size: int, height: int, width: int, shift: int = 0) -> Tensor:
    """Undo `windows`: (B, windows, size**2, C) -> (B, height, width, C), without what was filled up."""
    B, _, _, C = x.shape
    rows, columns = _windows_along(height, size), _windows_along(width, size)
    if known(height, width):
        x = x.view(B, rows, columns, size, size, C).transpose(2, 3).reshape(B, rows * size, columns * size, C)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]
    row = _rolled(torch.arange(height, device=x.device), -shift, height, size)[:, None]
    column = _rolled(torch.arange(width, device=x.device), -shift, width, size)
    window, inside = row // size * columns + column // size, row % size * size + column % size
    place = (window * size * size + inside).flatten()
    return x.flatten(1, 2).index_select(1, place).unflatten(1, (height, width))


def to_whole_windows(x: Tensor, patch: int, count: int) -> Tensor:
    """An image (B, C, H, W) whose patches `count` windows a side share: cut to patches, filled up with zeros."""
    _, _, H, W = x.shape
    kept_height, kept_width = H // patch * patch, W // patch * patch
    height, width = _filled(kept_height, patch * count), _filled(kept_width, patch * count)
    if known(H, W):
        x = x[:, :, :kept_height, :kept_width]
        filled = (height, width) != (kept_height, kept_width)
        return F.pad(x, (0, width - kept_width, 0, height - kept_height)) if filled else x
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    x = x.index_select(2, row.clamp(max=H - 1)).index_select(3, column.clamp(max=W - 1))
    return x * ((row < kept_height)[:, None] & (column < kept_width))


def windows_by_count(x: Tensor, count: int) -> Tensor:
    """Cut a map into `count` windows a side, which share it evenly: (B, H, W, C) -> (B, count**2, N, C).

    The sides are multiples of `count`.
    """
    B, H, W, C = x.shape
    rows, columns = H // count, W // count
    if known(H, W):
        x = x.view(B, count, rows, count, columns, C).transpose(2, 3)
        return x.reshape(B, count * count, rows * columns, C)
    window, inside = (
        torch.arange(count * count, device=x.device)[:, None],
        torch.arange(rows * columns, device=x.device),
    )
    (row, column), (down, right) = _divided(window, count), _divided(inside, columns)
    return x[:, row * rows + down, column * columns + right]


def map_of_windows(x: Tensor, count: int, height: int, width: int) -> Tensor:
    """Undo `windows_by_count`: (B, count**2, N, C) -> (B, height, width, C), without what was filled up."""
    B, _, _, C = x.shape
    rows, columns = _filled(height, count) // count, _filled(width, count) // count
    if known(height, width):
        x = x.view(B, count, count, rows, columns, C).transpose(2, 3)
        return x.reshape(B, count * rows, count * columns, C)[:, :height, :width]
    (row, down), (column, right) = (
        _divided(torch.arange(side, device=x.device), cells) for side, cells in ((height, rows), (width, columns))
    )
    return x[:, row[:, None] * count + column, down[:, None] * columns + right]


def block_states(x: Tensor, blocks: Iterable[nn.Module], inside: Collection[int]) -> list[Tensor]:
    """The tokens of windows (B, windows, N, C), then what each block in a row makes of them, in the same layout.

    The blocks whose numbers, from 0, are `inside` see one window at a time, the others all of them together.
    """
    states = [x]
    for index, block in enumerate(blocks):
        x = block(x) if index in inside else block(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        states.append(x)
    return states


def shift_mask(height: int, width: int, size: int, shift: int, like: Tensor) -> Tensor:
    """What to add to the scores inside each window of a map rolled by -`shift`: (windows, 1, size**2, size**2).

    0 between places that were neighbours before the map was rolled, -100 between the others; `like` gives device and
    dtype.
    """
    rows, columns = _windows_along(height, size), _windows_along(width, size)
    row, column = _places(rows, columns, size, like.device)
    regions = 3 * _region(row, height, size, shift) + _region(column, width, size, shift)
    regions = regions.flatten().unflatten(0, (rows * columns, size * size))
    apart = regions[:, None, :] != regions[:, :, None]
    return torch.where(apart, -100.0, 0.0).to(like.dtype).unsqueeze(1)


def blank_bias(height: int, width: int, size: int, like: Tensor) -> Tensor | None:
    """What keeps places that fill up the windows of a map from being attended to: (windows, 1, 1, size**2).

    To be added to the scores; None where the windows fit. `like` gives device and dtype.
    """
    if known(height, width) and height % size == width % size == 0:
        return None
    there = windows(like.new_ones(1, height, width, 1), size)
    return (there[0, :, None, None, :, 0] - 1) * (torch.finfo(like.dtype).max / 2)  # finite: a window may be blank


def rows_as_units(x: Tensor, stride: int, steps: int) -> Tensor:
    """Put the places of a map (B, H, W, C), listed row by row, where a list of nested units has them.

    A unit holds stride x stride smaller ones, `steps` times; the list runs through the places in the smallest first,
    and through the units last. The sides are filled up to whole units.
    """
    if not steps:
        return x
    B, H, W, C = (x := repeat_edges(x, stride**steps)).shape
    x = x.reshape(B, *(stride,) * (2 * steps), H // stride**steps, W // stride**steps, C)
    down, across = ([2 * steps + side, *range(2 * steps - 2 + side, 0, -2)] for side in (1, 2))
    return x.permute(0, *down, *across, 2 * steps + 3).reshape(B, H, W, C)


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


def known(*sides: int) -> bool:
    """Whether sides are plain numbers: always, but where a compiler works for any size."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return all(has_static_value(side) for side in sides)


def _filled(side: int, size: int) -> int:
    return (side + size - 1) // size * size  # -(-side // size) would be another number in ONNX, which cuts towards 0


def _windows_along(side: int, size: int) -> int:
    """How many windows cover a side; for an unknown one two at least, the second of which may be empty."""
    count = _filled(side, size) // size
    return count if known(side) else torch.sym_max(count, 2)  # type: ignore[return-value]


def _places(rows: int, columns: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The row and the column of each place in `rows` by `columns` windows; together (rows, columns, size, size)."""
    row, column = torch.arange(rows * size, device=device), torch.arange(columns * size, device=device)
    return row.view(rows, 1, size, 1), column.view(columns, 1, size)


def _rolled(place: Tensor, shift: int, side: int, size: int) -> Tensor:
    """Where places lie along a side, filled up to windows, that is rolled by `shift`; beyond it they stay."""
    filled = _filled(side, size)
    moved = place + (shift if shift >= 0 else filled + shift)
    moved = torch.where(moved < filled, moved, moved - filled)
    return torch.where(place < filled, moved, place)


def _divided(place: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """The quotient and the rest; ONNX has no remainder by an unknown number."""
    quotient = place // by
    return quotient, place - quotient * by


def _region(place: Tensor, side: int, size: int, shift: int) -> Tensor:
    """0 for what stays inside its window, 1 and 2 for the two parts of the last one."""
    filled = _filled(side, size)
    return (place >= filled - size).long() + (place >= filled - shift).long()
