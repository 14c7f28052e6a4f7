"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762), the one place where attention is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.layers.linear import Linear, linear

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
    if q.ndim != 5:
        return _fused(q, k, v, bias, dropout, scale)
    # the fused kernels take four dimensions: windows join the heads where each has its own bias, the batch elsewhere
    at = 1 if bias is not None and bias.ndim == 4 else 0
    if at and bias is not None:
        bias = bias.expand(q.shape[1], q.shape[2], -1, -1).flatten(0, 1)
    shape = q.shape[at : at + 2]
    q, k, v = (x.flatten(at, at + 1) for x in (q, k, v))
    return _fused(q, k, v, bias, dropout, scale).unflatten(at, shape)


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float | None) -> Tensor:
    if bias is not None and bias.ndim == 3:  # a mask of three dimensions takes the slow way: three times the time
        bias = bias.unsqueeze(0)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
    # what is exported may be lowered to another kernel than was traced, with another layout under the views behind it
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else x


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
