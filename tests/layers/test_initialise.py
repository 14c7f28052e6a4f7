"""The distributions of initial weights."""

import pytest
import torch
from torch import nn

from bbframe.layers.initialise import truncated_normal


@pytest.mark.parametrize("std", [0.02, 0.19, 0.5, 1.0, 3.0])
def test_a_truncated_normal_ends_at_two(std):
    torch.manual_seed(0)
    values = truncated_normal(nn.Parameter(torch.empty(100_000)), std)
    ours, theirs = values.detach(), nn.init.trunc_normal_(torch.empty(100_000), std=std)
    assert ours.abs().max() <= 2
    at = torch.linspace(0.001, 0.999, 99)
    torch.testing.assert_close(ours.quantile(at), theirs.quantile(at), atol=0.08 * min(std, 1), rtol=0)
