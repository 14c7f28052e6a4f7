"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762), the one place where attention is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_local = threading.local()


@contextmanager
def recorded_attentions() -> Iterator[list[Tensor]]:
    """Collect the attention probabilities that this thread computes inside the block, in call order."""
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


class DotProductAttention(nn.Module):
    """softmax(q k^T * scale + bias) v; in training a share `dropout` of the probabilities is dropped.

    Queries are (..., heads, N, D), keys and values (..., heads, M, D), the bias broadcasts to (..., heads, N, M); with
    five dimensions, (B, windows, heads, N, D), it may differ from window to window. `scale` is D ** -0.5 by default.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if recording():
            scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
            probabilities = (scores if bias is None else scores + bias).softmax(-1)
            record(probabilities)
            return F.dropout(probabilities, dropout) @ v
        shape = (*q.shape[:-1], v.shape[-1])
        x = F.scaled_dot_product_attention(*four_dimensions(q, k, v, bias), dropout_p=dropout, scale=scale).view(shape)
        # an exported program may be lowered to another kernel than was traced, with another layout under its views
        return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else x


def four_dimensions(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same attention in the four dimensions that the fused kernels take.

    Windows join the heads where each has its own bias, and the batch elsewhere.
    """
    if q.ndim == 5:
        at = 1 if bias is not None and bias.ndim == 4 else 0
        if at and bias is not None:
            bias = bias.expand(q.shape[1], q.shape[2], -1, -1).flatten(0, 1)
        q, k, v = (x.flatten(at, at + 1) for x in (q, k, v))
    if bias is not None and bias.ndim == 3:  # a mask of three dimensions takes a slower kernel
        bias = bias.unsqueeze(0)
    return q, k, v, bias


def split_heads(x: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (..., heads, N, D) from their joint product (..., N, 3 * heads * D)."""
    q, k, v = x.unflatten(-1, (3, num_heads, -1)).unbind(-3)
    return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(..., heads, N, D) -> (..., N, heads * D)."""
    return x.transpose(-3, -2).flatten(-2)


class QkvLinear(nn.Linear):
    """Query, key and value in one product, each with a bias of its own or none: (..., C) -> (..., 3 * C).

    `biases` names those that have one, such as "qv": a key's bias adds the same to all scores of a query, which
    softmax does not see.
    """

    q_bias: nn.Parameter | None
    k_bias: nn.Parameter | None
    v_bias: nn.Parameter | None

    def __init__(self, channels: int, biases: str):
        super().__init__(channels, 3 * channels, bias=False)
        for part in "qkv":
            bias = nn.Parameter(torch.zeros(channels)) if part in biases else None
            self.register_parameter(f"{part}_bias", bias)

    def joint_bias(self) -> Tensor | None:
        """The biases one after the other, (3 * C), with zeros for those that are absent; None when all are."""
        biases = (self.q_bias, self.k_bias, self.v_bias)
        like = next((bias for bias in biases if bias is not None), None)
        if like is None:
            return None
        return torch.cat([torch.zeros_like(like) if bias is None else bias for bias in biases])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.joint_bias())


class Attention(nn.Module):
    """Multi-head self-attention: (..., N, C) -> (..., N, C); `bias` is added to the scores (..., heads, N, N).

    `qkv` computes query, key and value in one product.
    """

    def __init__(
        self, qkv: nn.Linear, num_heads: int, attention_dropout: float, dropout: float, proj_bias: bool = True
    ):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = qkv
        self.attend = DotProductAttention(attention_dropout)
        self.proj = nn.Linear(qkv.in_features, qkv.in_features, proj_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = join_heads(self.attend(*split_heads(self.qkv(x), self.num_heads), bias))
        return self.dropout(self.proj(x))
