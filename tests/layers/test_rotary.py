"""Rotary positions by the coordinates of patches."""

import math

import pytest
import torch
from torch.nn import functional as F

from bbframe.layers.attention import QkvLinear
from bbframe.layers.rotary import RotaryAttention, RotaryPositions, rotate

CPU = torch.device("cpu")


def test_each_pair_of_channels_turns_by_its_own_multiple_of_a_coordinate():
    cos, sin = RotaryPositions(8, theta=100.0)((3, 5), 2, CPU)
    assert cos.shape == sin.shape == (2 + 15, 8)
    x = torch.randn(17, 8)
    turned = torch.view_as_real(torch.complex(x[:, :4], x[:, 4:]) * torch.polar(torch.ones(17, 4), _angles()))
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([turned[..., 0], turned[..., 1]], dim=-1))


def _angles():
    """Of two tokens, which do not turn, and a grid of 3 x 5: rows in the first two columns, columns in the others."""
    angles = torch.zeros(17, 4)
    for place in range(15):
        row, column = (place // 5 + 0.5) / 3 * 2 - 1, (place % 5 + 0.5) / 5 * 2 - 1
        angles[2 + place] = 2 * math.pi * torch.tensor([row, row / 10, column, column / 10])
    return angles


def test_scores_depend_on_the_offset_of_two_patches_alone():
    cos, sin = RotaryPositions(8, theta=100.0)((4, 6), 0, CPU)
    q, k = (rotate(torch.randn(8).expand(24, 8), cos, sin) for _ in range(2))
    scores = (q @ k.T).unflatten(0, (4, 6)).unflatten(2, (4, 6))
    torch.testing.assert_close(scores[1:, 1:, 1:, 1:], scores[:-1, :-1, :-1, :-1], atol=1e-4, rtol=1e-4)


def test_attention_turns_queries_and_keys_and_leaves_values_and_prefix_alone():
    attn = RotaryAttention(QkvLinear(24, "qv"), 3, 0.0, 0.0)
    x = torch.randn(2, 2 + 6, 24)
    cos, sin = RotaryPositions(8, theta=100.0)((2, 3), 2, CPU)
    q, k, v = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in attn.qkv(x).chunk(3, dim=-1))
    assert torch.equal(rotate(q, cos, sin)[:, :, :2], q[:, :, :2])
    expected = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
    torch.testing.assert_close(attn(x, cos, sin), attn.proj(expected.transpose(1, 2).flatten(2)))


def test_angles_are_those_of_float32_whatever_the_dtype_of_the_network_and_no_part_of_its_state():
    rotary = RotaryPositions(64, theta=100.0, rescale=2.0).eval()
    cos, _ = rotary((37, 53), 5, CPU)
    half, _ = rotary.to(torch.bfloat16)((37, 53), 5, CPU)
    assert half.dtype == torch.float32
    assert torch.equal(half, cos)
    assert not rotary.state_dict()
    assert not [*rotary.buffers()]
    x = torch.randn(2 + 3, 64).bfloat16()
    cos, sin = rotary((1, 3), 2, CPU)
    assert rotate(x, cos, sin).dtype == torch.bfloat16
    assert torch.equal(rotate(x, cos, sin), rotate(x.float(), cos, sin).bfloat16())


def coordinates(rotary, grid=(2, 2)):
    """Read off the slowest angles, (H * W, 2); `theta` is so large that these stay below half a turn."""
    cos, sin = rotary(grid, 0, CPU)
    width = rotary.width
    angles = torch.atan2(sin[:, width // 2 :], cos[:, width // 2 :])[:, [width // 4 - 1, width // 2 - 1]]
    return angles / (2 * math.pi) * rotary.theta ** (1 - 4 / width)


STEPS = {
    "shift": ({"shift": 0.5}, lambda c: c - STILL, 0.5),
    "jitter": ({"jitter": 1.5}, lambda c: (c / STILL).log(), math.log(1.5)),
    "rescale": ({"rescale": 2.0}, lambda c: (c / STILL).log(), math.log(2.0)),
}
STILL = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])


@pytest.mark.parametrize(("options", "amount", "most"), STEPS.values(), ids=STEPS.keys())
def test_coordinates_are_stretched_in_training_alone_and_by_torchs_generator(options, amount, most):
    rotary = RotaryPositions(8, theta=1e4, **options)
    torch.testing.assert_close(coordinates(rotary.eval()), STILL, atol=1e-4, rtol=1e-4)
    rotary.train()
    torch.manual_seed(3)
    first = coordinates(rotary)
    assert not torch.equal(coordinates(rotary), first)
    torch.manual_seed(3)
    assert torch.equal(coordinates(rotary), first)
    drawn = torch.stack([amount(coordinates(rotary)) for _ in range(400)])
    torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn), atol=1e-2, rtol=1e-2)  # alike for all patches
    assert drawn.abs().max() <= most + 1e-2
    assert drawn.min() < -0.9 * most
    assert drawn.max() > 0.9 * most
    both = (drawn[:, 0, 0] - drawn[:, 0, 1]).abs().max()
    assert both < 1e-2 if "rescale" in options else both > 0.5 * most  # one factor, or one a side
