"""Neighbourhood attention, against its definition query by query."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bbframe.layers.attention import recorded_attentions
from bbframe.layers.neighborhood import NeighborhoodAttention, TiledAttention, neighborhoods

# height, width, kernel, dilation, heads, batch: one tile and several, sides that are no multiple of the dilation, both
# sides or one of them shorter than kernel * dilation, shorter than the dilation
SHAPES = [
    (7, 7, 7, 1, 2, 1),
    (9, 16, 3, 1, 1, 3),
    (25, 15, 7, 1, 2, 1),
    (20, 31, 5, 1, 1, 1),
    (12, 18, 3, 2, 2, 3),
    (17, 22, 3, 3, 1, 1),
    (31, 35, 3, 2, 1, 1),
    (34, 16, 5, 2, 2, 1),
    (5, 6, 3, 4, 2, 3),
    (3, 2, 3, 5, 1, 1),
    (4, 3, 7, 1, 2, 1),
    (19, 5, 5, 2, 1, 2),
    (5, 19, 3, 3, 1, 1),
    (5, 5, 1, 2, 1, 1),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))


def window(place, side, kernel, dilation):
    """The neighbours of a place along a side, and what its bias table calls them."""
    group = range(place % dilation, side, dilation)
    index = group.index(place)
    first = min(max(index - kernel // 2, 0), len(group) - kernel)
    return [(group[i], i - index + kernel - 1) for i in range(first, first + kernel)]


def by_definition(qkv, rpb, dilation, blank):
    """The result and the probabilities, one query after the other."""
    B, H, W, _, _, D = qkv.shape
    kernel = (rpb.shape[-1] + 1) // 2
    height, width = max(H, kernel * dilation), max(W, kernel * dilation)
    rows = [window(y, height, kernel, dilation) for y in range(H)]
    columns = [window(x, width, kernel, dilation) for x in range(W)]
    results, probabilities = [], []
    for y in range(H):
        for x in range(W):
            neighbours = [(a, b) for a, _ in rows[y] for b, _ in columns[x]]
            near = [qkv[:, a, b, 1:] if a < H and b < W else blank.expand(B, -1, -1, -1) for a, b in neighbours]
            k, v = torch.stack(near, dim=3).unbind(1)  # (B, heads, neighbours, D)
            bias = torch.stack([rpb[:, i, j] for _, i in rows[y] for _, j in columns[x]], dim=1)
            p = ((qkv[:, y, x, 0, :, None] * k).sum(-1) * D**-0.5 + bias).softmax(-1)
            probabilities.append(p)
            results.append((p[..., None] * v).sum(-2))
    return torch.stack(results, 1).unflatten(1, (H, W)), torch.stack(probabilities, 2).unflatten(2, (H, W))


def given(shape, dtype=torch.float64, size=4):
    """Queries, keys and values of a map, a table of biases, a dilation, what fills up."""
    height, width, kernel, dilation, heads, batch = shape
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, height, width, 3, heads, size), (heads, 2 * kernel - 1, 2 * kernel - 1), (2, heads, size)
    qkv, rpb, blank = (
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes
    )
    return qkv, rpb, dilation, blank


def attend(qkv, rpb, dilation, blank):
    around = neighborhoods(qkv.shape[1], qkv.shape[2], (rpb.shape[-1] + 1) // 2, dilation, qkv.device)
    return TiledAttention(dilation)(qkv, rpb, blank, *around)


def with_gradients(function, tensors):
    x = function(*tensors)
    weights = torch.arange(x.numel(), dtype=torch.float64).cos().reshape(x.shape).to(x)
    inputs = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
    return x, *torch.autograd.grad((x * weights).sum(), inputs, materialize_grads=True)


@every_shape
def test_it_is_its_definition(shape):
    expected = with_gradients(lambda *tensors: by_definition(*tensors)[0], given(shape))
    for a, b in zip(with_gradients(attend, given(shape)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_shape
def test_probabilities_are_recorded_window_by_window(shape):
    tensors = given(shape)
    result, probabilities = by_definition(*tensors)
    with recorded_attentions() as recorded:
        torch.testing.assert_close(attend(*tensors), result)
    (of_windows,) = recorded
    height, width, kernel, _, heads, batch = shape
    assert of_windows.shape == (batch, heads, height, width, kernel**2)
    torch.testing.assert_close(of_windows, probabilities)


@pytest.mark.slow
@pytest.mark.parametrize(("dilation", "dynamic"), [(1, False), (2, False), (3, True)])
def test_what_a_compiler_sees_is_the_same(dilation, dynamic):
    """For sides that the compiler knows and for those it does not; with gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(attend, backend="eager", fullgraph=True, dynamic=dynamic)
    for height, width in ((25, 31), (15, 6), (5, 8), (40, 9)):
        tensors = given((height, width, 3, dilation, 2, 2))
        for a, b in zip(with_gradients(compiled, tensors), with_gradients(attend, tensors), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (7, 1), (13, 1), (3, 2), (7, 2), (5, 3), (11, 4)])
def test_every_window_lies_within_the_keys_of_its_tile(kernel, dilation):
    """Of any side, and for the sides of short groups too."""
    for side in range(1, 40 * dilation + 5 * kernel):
        seen, offsets, *_ = neighborhoods(side, kernel * dilation, kernel, dilation, torch.device("cpu"))
        assert (seen.sum(-1) >= kernel**2).all()
        assert offsets.min() >= 0
        assert offsets.max() < (2 * kernel - 1) ** 2


@pytest.mark.parametrize("shape", SHAPES[:6])
def test_half_precision_agrees_to_its_precision(shape):
    exact = with_gradients(attend, given(shape))
    rough = with_gradients(attend, given(shape, torch.bfloat16))
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a - b).norm() <= 0.03 * b.norm() + 1e-6


@pytest.mark.gpu
@every_shape
def test_a_gpu_gives_the_same(shape):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = given(shape, torch.float32, size=8)
    on_gpu = [t.detach().cuda().requires_grad_() if isinstance(t, torch.Tensor) else t for t in tensors]
    for a, b in zip(with_gradients(attend, on_gpu), with_gradients(attend, tensors), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_alone():
    attn = NeighborhoodAttention(nn.Linear(8, 24, bias=False), 2, 3, 2, attention_dropout=0.5, dropout=0.0)
    nn.init.normal_(attn.rpb)
    for height, width in ((9, 7), (4, 5)):
        x = torch.randn(2, height, width, 8)
        around = neighborhoods(height, width, 3, 2, x.device)
        assert not torch.equal(attn.train()(x, *around), attn(x, *around))
        assert torch.equal(attn.eval()(x, *around), attn(x, *around))
