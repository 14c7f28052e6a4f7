"""Activations that are computed again."""

import pytest
import torch
from torch import nn

from bbframe.layers.recompute import Recomputed


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_are_counted_once(momentum):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    found = []
    for recomputed in (False, True):
        block = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum), nn.ReLU(), nn.BatchNorm2d(3, momentum=momentum))
        if recomputed:
            block.forward = Recomputed(block)
        for _ in range(2):
            block(x.requires_grad_()).cos().sum().backward()
        found.append([value.clone() for value in block.state_dict().values()])
        assert block[0].momentum == momentum
        assert block[0].num_batches_tracked == 2
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_recomputed_in_evaluation():
    block = nn.Sequential(nn.Linear(3, 3)).eval()
    calls = []
    block[0].register_forward_pre_hook(lambda *_: calls.append(1))
    block.forward = Recomputed(block)
    block(torch.randn(2, 3)).sum().backward()
    assert len(calls) == 1
    block.train()(torch.randn(2, 3)).sum().backward()
    assert len(calls) == 3
