"""Tables of positions and of offsets, at their own size and at others."""

import pytest
import torch

from bbframe.layers.attention import DotProductAttention
from bbframe.layers.positions import (
    DecomposedPositions,
    RelativeBias,
    patch_grid,
    resize_line,
    resize_offsets,
    resize_positions,
    token_index,
)

CPU = torch.device("cpu")
GRID = (2, 3)


def bias_by_definition(table, grid):
    """The value of each head for a query i and a key j, places counted row by row behind the class token."""
    h, w = grid
    bias = torch.zeros(table.shape[1], 1 + h * w, 1 + h * w)
    for i in range(h * w):
        for j in range(h * w):
            rows, columns = i // w - j // w, i % w - j % w
            bias[:, 1 + i, 1 + j] = table[(rows + h - 1) * (2 * w - 1) + columns + w - 1]
    bias[:, 0, 1:] = table[-3][:, None]
    bias[:, 1:, 0] = table[-2][:, None]
    bias[:, 0, 0] = table[-1]
    return bias


def relative_bias(grid=GRID):
    module = RelativeBias(grid, 4)
    torch.nn.init.normal_(module.table)
    return module


def test_a_relative_bias_at_its_own_size_is_its_table():
    module = relative_bias()
    assert torch.equal(module(GRID, token_index(GRID, CPU)), bias_by_definition(module.table, GRID))


@pytest.mark.parametrize("grid", [(4, 3), (1, 7), (5, 5)])
def test_a_relative_bias_at_another_size_is_that_of_the_resized_table(grid):
    module = relative_bias()
    table = torch.cat([resize_offsets(module.table[:-3], grid, GRID), module.table[-3:]])
    assert torch.equal(module(grid, token_index(grid, CPU)), bias_by_definition(table, grid))


def test_resized_offsets_keep_rows_and_columns_apart():
    rows = torch.arange(3.0)[:, None].expand(3, 5).reshape(15, 1)  # the offsets of a grid of 2 x 3
    resized = resize_offsets(rows, (4, 2), GRID).view(7, 3)
    torch.testing.assert_close(resized, resized[:, :1].expand(7, 3))
    assert (resized.diff(dim=0) >= 0).all()
    assert resized[3, 0] == 1  # no offset stays no offset


def test_positions_of_a_rectangle_are_resized_as_such():
    rows = torch.arange(2.0)[:, None].expand(GRID).reshape(1, 6, 1)
    assert torch.equal(resize_positions(rows, GRID, GRID), rows)
    resized = resize_positions(rows, (5, 4), GRID).view(5, 4)
    torch.testing.assert_close(resized, resized[:, :1].expand(5, 4))


@pytest.mark.parametrize("grid", [(3, 4), (5, 2)])
@pytest.mark.parametrize("lead", [(2, 3), (2, 5, 3)], ids=["heads", "windows and heads"])
def test_decomposed_positions_add_the_products_of_the_unscaled_query(grid, lead):
    (h, w), size = grid, 8
    module = DecomposedPositions((3, 4), size)
    for table in module.parameters():
        torch.nn.init.normal_(table)
    q, k, v = (torch.randn(*lead, h * w, size) for _ in range(3))
    bias = torch.zeros(*lead, h * w, h * w)
    tables = resize_line(module.rows, h), resize_line(module.columns, w)
    for i in range(h * w):
        for j in range(h * w):
            for table, a, b, side in zip(tables, (i // w, i % w), (j // w, j % w), grid, strict=True):
                bias[..., i, j] += q[..., i, :] @ table[a - b + side - 1]
    expected = (q @ k.mT * size**-0.5 + bias).softmax(-1) @ v
    found = DotProductAttention()(*module(q, k, v, grid), scale=size**-0.5)
    torch.testing.assert_close(found[..., :size], expected)
    assert not found[..., size:].any()


def test_tables_at_their_own_size_are_unchanged_and_half_precision_is_resized_in_full():
    line, offsets = torch.randn(5, 6), torch.randn(15, 4)
    assert torch.equal(resize_line(line, 3), line)
    assert torch.equal(resize_offsets(offsets, GRID, GRID), offsets)
    for resize, table in ((resize_line, line), (lambda t, s: resize_offsets(t, (s, s), GRID), offsets)):
        half = table.bfloat16()
        assert torch.equal(resize(half, 7), resize(half.float(), 7).bfloat16())


def test_the_grid_of_an_image_counts_whole_patches():
    assert patch_grid(30, 8) == (3, 3)
    assert patch_grid((17, 32), 8) == (2, 4)
