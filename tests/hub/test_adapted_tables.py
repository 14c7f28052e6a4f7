"""Tables of positions and of offsets from checkpoints of another size."""

import pytest
import torch

from bbframe.hub.adapted_tables import adapt_kernel, adapt_line, adapt_offsets, adapt_positions
from bbframe.layers.positions import resize_offsets, resize_positions

GRID = (2, 3)


def test_a_checkpoints_tables_are_adapted_and_it_is_said_how():
    positions, offsets = torch.randn(1, 10, 5), torch.randn(28, 4)  # of 3 x 3 patches
    table, how = adapt_positions(positions, torch.Size([1, 7, 5]), GRID)
    assert how == "positions of 3 x 3 patches resized to 2 x 3"
    assert torch.equal(table[:, :1], positions[:, :1])
    assert torch.equal(table[:, 1:], resize_positions(positions[:, 1:], GRID))
    table, how = adapt_offsets(offsets, torch.Size([18, 4]), GRID)
    assert how == "offsets of 3 x 3 patches resized to 2 x 3"
    assert torch.equal(table[-3:], offsets[-3:])
    assert torch.equal(table[:-3], resize_offsets(offsets[:-3], GRID, (3, 3)))
    assert adapt_line(torch.randn(5, 4), torch.Size([9, 4]))[1] == "offsets along 3 patches resized to 5"
    kernel, how = adapt_kernel(torch.ones(2, 3, 14, 14), torch.Size([2, 3, 16, 16]))
    assert how == "patches of 14 x 14 pixels resized to 16 x 16"
    torch.testing.assert_close(kernel, torch.ones(2, 3, 16, 16))


@pytest.mark.parametrize(
    "adapted",
    [
        adapt_positions(torch.zeros(7, 7), torch.Size([1, 7, 5]), GRID),
        adapt_positions(torch.zeros(1, 10, 6), torch.Size([1, 7, 5]), GRID),
        adapt_positions(torch.zeros(1, 8, 5), torch.Size([1, 7, 5]), GRID),
        adapt_positions(torch.zeros(1, 1, 5), torch.Size([1, 7, 5]), GRID),
        adapt_offsets(torch.zeros(28, 5), torch.Size([18, 4]), GRID),
        adapt_offsets(torch.zeros(27, 4), torch.Size([18, 4]), GRID),
        adapt_offsets(torch.zeros(3, 4), torch.Size([18, 4]), GRID),
        adapt_offsets(torch.zeros(28), torch.Size([18, 4]), GRID),
        adapt_line(torch.zeros(4, 4), torch.Size([9, 4])),
        adapt_line(torch.zeros(5, 3), torch.Size([9, 4])),
        adapt_kernel(torch.zeros(2, 3), torch.Size([2, 3, 16, 16])),
    ],
)
def test_what_is_no_such_table_is_not_adapted(adapted):
    assert adapted is None
