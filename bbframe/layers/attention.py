"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762), the one place where attention is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.layers.linear import Linear, by_hand, by_onednn, linear, needs_gradient
from bbframe.layers.once import as_autocast

_SCORES = 2**19  # of a piece: half or twice as many take up to 5 % longer
_local = threading.local()


@contextmanager
def recorded_attentions() -> Iterator[list[Tensor]]:
    """Collect the attention probabilities of every `attend` of this thread inside the block, in call order."""
    outer, _local.recorded = getattr(_local, "recorded", None), []
    try:
        yield _local.recorded
    finally:
        _local.recorded = outer


def recording() -> bool:
    """Whether this thread is inside `recorded_attentions`."""
    return getattr(_local, "recorded", None) is not None


def record(probabilities: Tensor) -> None:
    """Add the probabilities of a block that attends in another layout than it is recorded in."""
    _local.recorded.append(probabilities)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Attend from queries (..., N, D) to keys and values (..., M, D); `bias` (broadcast to ..., N, M) is added first.

    Of the dimensions in front the last is that of the heads; with five in all, (B, windows, heads, N, D), the bias may
    differ from window to window. `dropout` is the share of probabilities to drop; the caller passes 0 outside
    training. The products are multiplied by `scale`, by default D ** -0.5.
    """
    recorded = getattr(_local, "recorded", None)
    if recorded is not None:
        scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        probabilities = (scores if bias is None else scores + bias).softmax(-1)
        recorded.append(probabilities)
        return F.dropout(probabilities, dropout) @ v
    if not dropout and _pays_in_pieces(q, k, v, bias):
        q, k, v = as_autocast(q, k, v)
        return _in_pieces(q, k, v, bias, q.shape[-1] ** -0.5 if scale is None else scale)
    if q.ndim != 5:
        return _fused(q, k, v, bias, dropout, scale)
    # the fused kernels take four dimensions: windows join the heads where each has its own bias, the batch elsewhere
    at = 1 if bias is not None and bias.ndim == 4 else 0
    if at and bias is not None:
        bias = bias.expand(q.shape[1], q.shape[2], -1, -1).flatten(0, 1)
    shape = q.shape[at : at + 2]
    q, k, v = (x.flatten(at, at + 1) for x in (q, k, v))
    return _fused(q, k, v, bias, dropout, scale).unflatten(at, shape)


def _pays_in_pieces(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether attention in pieces is the faster one: for windows of up to 12 x 12 places; 14 x 14 gain nothing."""
    small = q.ndim in (4, 5) and 0 < q.shape[-2] <= 144 and 0 < k.shape[-2] <= 1024
    return small and by_onednn(q) and not needs_gradient(q, k, v, bias)


def _in_pieces(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention by products of matrices in float32, a few windows at a time, whose scores stay in a CPU's cache.

    All pieces use the same memory for them. The fused kernels, which treat one window after the other, take 10 to 70 %
    longer: on two cores of a Zen 4, for 8 images in the first stage of Swin 14 instead of 12 ms, of SwinV2 21 instead
    of 13, in float32 and in bfloat16.
    """
    out = q.new_empty(*q.shape[:-3], q.shape[-2], q.shape[-3], v.shape[-1]).transpose(-3, -2)
    bias = (q.new_zeros(()) if bias is None else bias).float().expand(*q.shape[:-1], k.shape[-2])
    every: tuple[Tensor, ...] = (q, k, v, bias, out)
    if q.ndim == 4 or not bias.stride(1):  # no window has a bias of its own: each head may go alone
        every = tuple(x.flatten(0, -4).unsqueeze(2) for x in every)
    images, windows, heads, N, M = every[3].shape
    count = some(heads * N * M, _SCORES)
    images_at_once, windows_at_once = max(1, count // windows), min(count, windows)
    scores = bias.new_empty(images_at_once * windows_at_once * heads, N, M)
    for i in range(0, images, images_at_once):
        for j in range(0, windows, windows_at_once):
            q, k, v, bias, given = (x[i : i + images_at_once, j : j + windows_at_once] for x in every)
            q, k, v = (bias.new_empty(x.shape).copy_(x).flatten(0, 2) for x in (q, k, v))
            p = scores[: len(q)]
            torch.baddbmm(p, q, k.mT, beta=0, alpha=scale, out=p)
            p.view(bias.shape).add_(bias)
            torch.softmax(p, -1, out=p)
            given.copy_(torch.bmm(p, v).view(given.shape))
    return out


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float | None) -> Tensor:
    if bias is not None and bias.ndim == 3:  # a mask of three dimensions takes the slow way: three times the time
        bias = bias.unsqueeze(0)
    if bias is not None and not dropout and bias.shape[:2] == (1, q.shape[1]) and _gradient_by_hand(q, bias):
        return _AttendOnCpu.apply(*as_autocast(q, k, v, bias), q.shape[-1] ** -0.5 if scale is None else scale)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
    # what is exported may be lowered to another kernel than was traced, with another layout under the views behind it
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else x


def _gradient_by_hand(q: Tensor, bias: Tensor) -> bool:
    """Whether a gradient will be asked of a bias on a CPU, for which the fused kernels there have none."""
    return by_hand() and q.device.type == "cpu" and needs_gradient(bias)


class _AttendOnCpu(torch.autograd.Function):
    """Attention with a bias (1, heads, N, M) that learns, without the copies of all scores that PyTorch would keep."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        x = attend(q, k, v, bias.detach().to(q.dtype), scale=scale)
        ctx.save_for_backward(q, k, v, x, bias)
        ctx.scale = scale
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, x, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            out = (q @ k.transpose(-2, -1) * ctx.scale + bias).softmax(-1).to(v.dtype) @ v
            asked = ctx.needs_input_grad[:4]
            given = [y for y, needed in zip((q, k, v, bias), asked, strict=True) if needed]
            found = iter(torch.autograd.grad(out, given, grad, create_graph=True))
            return (*(next(found) if needed else None for needed in asked), None)
        bias_grad = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        pieces = [y.split(some(bias.numel())) for y in (q, k, v, x, grad)]
        parts = [attention_gradient(piece, bias, bias_grad, ctx.scale) for piece in zip(*pieces, strict=True)]
        return (*map(torch.cat, zip(*parts, strict=True)), bias_grad.to(bias.dtype), None)


def some(scores: int, together: int = 2**20) -> int:
    """How many maps at a time have about a million scores, if each has so many: these stay in the cache."""
    return max(1, together // scores)


def attention_gradient(
    attended: tuple[Tensor, ...], bias: Tensor, bias_grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries (n, ..., N, D), keys and values (n, ..., M, D), whose scores are computed again.

    `attended` are these three, the result, and its gradient. That of the bias (1, ..., N, M) is added to `bias_grad`.
    """
    q, k, v, x, grad = attended
    queries, keys, values, out, total = (
        y.reshape(-1, *y.shape[-2:]) for y in (q * scale, k, v, grad, (x * grad).sum(-1, keepdim=True))
    )
    scores = torch.bmm(queries, keys.mT)
    scores.view(-1, *bias.shape[1:]).add_(bias)
    p = scores.softmax(-1)
    of_values = torch.bmm(p.mT, out)
    scores = torch.bmm(out, values.mT, out=scores).sub_(total).mul_(p)  # their gradient
    bias_grad += scores.view(-1, *bias.shape[1:]).sum(0, dtype=bias_grad.dtype)
    of_queries, of_keys = torch.bmm(scores, keys).mul_(scale), torch.bmm(scores.mT, queries)
    return of_queries.view(q.shape), of_keys.view(k.shape), of_values.view(v.shape)


def split_heads(x: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (..., heads, N, D) from their joint product (..., N, 3 * heads * D)."""
    q, k, v = x.unflatten(-1, (3, num_heads, -1)).unbind(-3)
    return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(..., heads, N, D) -> (..., N, heads * D)."""
    return x.transpose(-3, -2).flatten(-2)


class KeylessLinear(Linear):
    """Query, key and value in one product, with a bias for query and value alone: (..., C) -> (..., 3 * C).

    A key's bias would add the same to all scores of a query, which softmax does not see.
    """

    def __init__(self, channels: int):
        super().__init__(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))


class Attention(nn.Module):
    """Multi-head self-attention: (..., N, C) -> (..., N, C); `bias` is added to the scores (..., heads, N, N).

    `qkv` computes query, key and value in one product.
    """

    def __init__(self, qkv: nn.Linear, num_heads: int, attention_dropout: float, dropout: float):
        super().__init__()
        self.num_heads, self.attention_dropout = num_heads, attention_dropout
        self.qkv = qkv
        self.proj = Linear(qkv.in_features, qkv.in_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        x = attend(q, k, v, bias, dropout=self.attention_dropout if self.training else 0.0)
        return self.dropout(self.proj(join_heads(x)))
