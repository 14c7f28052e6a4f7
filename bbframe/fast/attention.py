"""Attention for a CPU: a few windows at a time, and with the gradient of a bias written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.fast.converter import swaps
from bbframe.fast.probe import as_autocast, by_hand, may_run, needs_gradient
from bbframe.layers.attention import DotProductAttention, four_dimensions, recording

_SCORES = 2**19  # of a piece: half or twice as many take up to 5 % longer


@swaps("bbframe.layers.attention.DotProductAttention")
def attention_forward(
    attend: DotProductAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The forward of `DotProductAttention`: in pieces, or with a gradient by hand, where that is faster."""
    if recording() or (attend.training and attend.dropout) or not by_hand(q, k, v, bias):
        return type(attend).forward(attend, q, k, v, bias, scale)
    return attention(q, k, v, bias, q.shape[-1] ** -0.5 if scale is None else scale)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + bias) v, of tensors as `DotProductAttention` takes them, `by_hand`."""
    shape = (*q.shape[:-1], v.shape[-1])
    if _pays_in_pieces(q, k, v, bias):
        q, k, v = as_autocast(q, k, v)
        return _in_pieces(q, k, v, bias, scale)
    q, k, v, bias = four_dimensions(q, k, v, bias)
    if bias is not None and needs_gradient(bias) and bias.shape[:2] == (1, q.shape[1]):
        return _Attention.apply(*as_autocast(q, k, v, bias), scale).view(shape)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).view(shape)


def _pays_in_pieces(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether attention in pieces is the faster one: for windows of up to 12 x 12 places; 14 x 14 gain nothing."""
    small = q.ndim in (4, 5) and 0 < q.shape[-2] <= 144 and 0 < k.shape[-2] <= 1024
    return small and not needs_gradient(q, k, v, bias) and may_run("product", q, k, v)


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


class _Attention(torch.autograd.Function):
    """Attention with a bias (1, heads, N, M) that learns, without the copies of all scores that PyTorch would keep."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        x = attention(q, k, v, bias.detach().to(q.dtype), scale)
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
    """How many maps at a time have about a million scores, at `scores` each: these stay in the cache."""
    return max(1, together // scores)


def attention_gradient(
    attended: tuple[Tensor, ...], bias: Tensor, bias_grad: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries (n, ..., N, D), keys and values (n, ..., M, D), whose scores are computed again.

    `attended` are these three, the result, and its gradient. The bias's own (1, ..., N, M) is added to `bias_grad`.
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
