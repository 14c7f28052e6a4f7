"""Windows of a map, the mask of shifted ones, and the offsets inside a window."""

import pytest
import torch
import torch._dynamo.testing

from bbframe.layers.windows import fill_up, relative_index, shift_mask, unwindow, windows

SIZES = [(8, 12, 4, 2), (7, 5, 3, 1), (2, 9, 4, 2), (3, 3, 3, 0), (1, 1, 5, 2), (10, 4, 1, 0)]
every_size = pytest.mark.parametrize(("height", "width", "size", "shift"), SIZES)


@every_size
def test_windows_hold_the_map_row_by_row_and_go_back(height, width, size, shift):
    x = torch.randn(2, height, width, 5)
    cut = windows(x, size, shift)
    rows, columns = -(-height // size), -(-width // size)
    assert cut.shape == (2, rows * columns, size * size, 5)
    for row in range(rows * size):
        for column in range(columns * size):
            window = row // size * columns + column // size
            place = row % size * size + column % size
            source = (row + shift) % (rows * size), (column + shift) % (columns * size)
            inside = source[0] < height and source[1] < width
            expected = x[:, source[0], source[1]] if inside else torch.zeros(2, 5)
            assert torch.equal(cut[:, window, place], expected)
    assert torch.equal(unwindow(cut, size, height, width, shift), x)


@every_size
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


def test_a_map_is_filled_up_behind_its_end():
    x = torch.randn(2, 7, 8, 3)
    filled = fill_up(x, 4)
    assert filled.shape == (2, 8, 8, 3)
    assert torch.equal(filled[:, :7], x)
    assert not filled[:, 7].any()
    assert fill_up(filled, 4) is filled


@pytest.mark.long
@pytest.mark.parametrize("shift", [0, 2])
def test_one_program_serves_every_size(shift):
    """What a compiler makes for any size does the same, though it may not ask how many windows there are."""

    def attended(x):
        x = fill_up(x, 2)
        _, H, W, _ = x.shape
        inside = windows(x, 5, shift)
        scores = inside @ inside.transpose(2, 3) + shift_mask(H, W, 5, shift, x)[:, 0]
        return unwindow(scores.softmax(-1) @ inside, 5, H, W, shift)

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(attended, backend=counter, fullgraph=True, dynamic=True)
    for height, width in ((20, 15), (9, 11), (2, 3), (5, 16), (4, 5), (31, 2), (10, 10)):
        x = torch.randn(2, height, width, 3, requires_grad=True)
        out, expected = compiled(x), attended(x)
        torch.testing.assert_close(out, expected)
        cotangent = torch.randn_like(out)
        (grad,), (expected_grad,) = (torch.autograd.grad(y, x, cotangent) for y in (out, expected))
        torch.testing.assert_close(grad, expected_grad)
    assert counter.frame_count == 1


def test_offsets_are_listed_row_by_row():
    height, width = 3, 4
    index = relative_index(height, width, torch.device("cpu"))
    for query in range(height * width):
        for key in range(height * width):
            rows, columns = query // width - key // width, query % width - key % width
            assert index[query, key] == (rows + height - 1) * (2 * width - 1) + columns + width - 1
