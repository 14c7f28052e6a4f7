"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762), the one place where attention is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

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


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Attend from queries (..., N, D) to keys and values (..., M, D); `bias` (broadcast to ..., N, M) is added first.

    `dropout` is the share of probabilities to drop; the caller passes 0 outside training.
    """
    recorded = getattr(_local, "recorded", None)
    if recorded is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    probabilities = (scores if bias is None else scores + bias).softmax(-1)
    recorded.append(probabilities)
    return F.dropout(probabilities, dropout) @ v


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, query, key and value in one product: (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, num_heads: int, qkv_bias: bool, attention_dropout: float, dropout: float):
        super().__init__()
        self.num_heads, self.attention_dropout = num_heads, attention_dropout
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        x = attend(q, k, v, dropout=self.attention_dropout if self.training else 0.0)
        return self.dropout(self.proj(x.transpose(1, 2).reshape(B, N, C)))
