"""Stochastic depth."""

import pytest
import torch

from bbframe.layers.residual import DropPath, rising_rates


def test_whole_samples_are_dropped_and_the_mean_is_kept():
    drop = DropPath(0.25).train()
    y = drop(torch.ones(4000, 2, 3))
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, kept[:, None, None] / 0.75 * torch.ones(4000, 2, 3))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.05)


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = torch.randn(8, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_rates_rise_from_zero_to_the_last():
    rates = rising_rates(0.3, (1, 2, 1))
    assert [len(stage) for stage in rates] == [1, 2, 1]
    assert [rate for stage in rates for rate in stage] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rising_rates(0.3, (1,)) == [[0.0]]
