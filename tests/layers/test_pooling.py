"""Pooling: one result, whether or not sides are known."""

import pytest
import torch

from bbframe.layers import pooling


@pytest.mark.parametrize("size", [(56, 56), (13, 30), (7, 7), (3, 5), (1, 1)])
def test_means_of_parts_are_those_of_pytorch_when_sides_are_not_known(size, monkeypatch):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 7)
    assert torch.equal(pooling.average_to(7, x), expected)
    monkeypatch.setattr(pooling, "known", lambda *sides: False)
    torch.testing.assert_close(pooling.average_to(7, x), expected)


@pytest.mark.parametrize("size", [(2, 9), (9, 2), (1, 1), (4, 4), (9, 9)])
def test_zeros_fill_up_what_is_too_small_when_sides_are_not_known_too(size, monkeypatch):
    x = torch.randn(2, 3, *size)
    filled = pooling.at_least(4, x)
    assert tuple(filled.shape[2:]) == tuple(max(side, 4) for side in size)
    assert torch.equal(filled[:, :, : size[0], : size[1]], x)
    assert filled.count_nonzero() == x.count_nonzero()
    monkeypatch.setattr(pooling, "known", lambda *sides: False)
    assert torch.equal(pooling.at_least(4, x), filled)


def test_groups_at_an_edge_are_those_that_are_there():
    x = torch.arange(15.0).view(1, 3, 5, 1)
    assert torch.equal(pooling.largest(x, 2)[0, :, :, 0], torch.tensor([[6.0, 8, 9], [11, 13, 14]]))
    assert pooling.largest(x, 1) is x
