"""Neighbourhood attention for a CPU, against its definition query by query."""

from __future__ import annotations

import pytest
import torch

from bbframe.fast import convert
from bbframe.layers.neighborhood import TiledAttention, neighborhoods
from tests.layers.test_neighborhood import SHAPES, by_definition, every_shape, given, with_gradients


def attend(qkv, rpb, dilation, blank):
    around = neighborhoods(qkv.shape[1], qkv.shape[2], (rpb.shape[-1] + 1) // 2, dilation, qkv.device)
    return convert(TiledAttention(dilation))(qkv, rpb, blank, *around)


@every_shape
def test_it_is_its_definition(shape):
    expected = with_gradients(lambda *tensors: by_definition(*tensors)[0], given(shape))
    for a, b in zip(with_gradients(attend, given(shape)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_scores_are_not_kept_for_the_gradient():
    """What is kept is less than one number for each pair of neighbours."""
    shape = (28, 28, 7, 1, 2, 16)
    qkv, rpb, dilation, blank = given(shape, torch.float32)
    kept = 0

    def pack(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attend(qkv, rpb, dilation, blank)
    assert kept < 16 * 2 * 28 * 28 * 49


@pytest.mark.parametrize("shape", SHAPES[:6])
def test_half_precision_agrees_to_its_precision(shape):
    exact = with_gradients(attend, given(shape))
    rough = with_gradients(attend, given(shape, torch.bfloat16))
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a - b).norm() <= 0.03 * b.norm() + 1e-6
