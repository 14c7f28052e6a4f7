"""Windows of a map, the mask of shifted ones, and the offsets inside a window."""

import pytest
import torch

from bbframe.layers.windows import relative_index, shift_mask, unwindow, windows


@pytest.mark.parametrize(("height", "width", "size"), [(8, 12, 4), (7, 5, 3), (2, 9, 4), (3, 3, 3)])
def test_windows_hold_the_map_row_by_row_and_go_back(height, width, size):
    x = torch.randn(2, height, width, 5)
    cut = windows(x, size)
    rows, columns = -(-height // size), -(-width // size)
    assert cut.shape == (2, rows * columns, size * size, 5)
    for row in range(rows * size):
        for column in range(columns * size):
            window = row // size * columns + column // size
            place = row % size * size + column % size
            inside = row < height and column < width
            expected = x[:, row, column] if inside else torch.zeros(2, 5)
            assert torch.equal(cut[:, window, place], expected)
    assert torch.equal(unwindow(cut, size, height, width), x)


@pytest.mark.parametrize(("height", "width", "size", "shift"), [(8, 12, 4, 2), (7, 5, 3, 1), (4, 4, 4, 2)])
def test_a_shifted_window_separates_what_was_apart(height, width, size, shift):
    """Two places of a window are together unless one of them was rolled in from the other end of the map."""
    H, W = height + -height % size, width + -width % size
    wrapped = torch.tensor([[(r >= H - shift, c >= W - shift) for c in range(W)] for r in range(H)])
    of_window = windows(wrapped[None].float(), size)[0]
    together = (of_window[:, :, None] == of_window[:, None]).all(-1)
    mask = shift_mask(height, width, size, shift, torch.empty(0))
    assert mask.shape == (H // size * (W // size), 1, size**2, size**2)
    assert torch.equal(mask[:, 0] == 0, together)
    assert torch.equal(mask[:, 0] == -100, ~together)


def test_offsets_are_listed_row_by_row():
    height, width = 3, 4
    index = relative_index(height, width, torch.device("cpu"))
    for query in range(height * width):
        for key in range(height * width):
            rows, columns = query // width - key // width, query % width - key % width
            assert index[query, key] == (rows + height - 1) * (2 * width - 1) + columns + width - 1
