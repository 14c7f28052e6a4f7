"""Losses of classification."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.tasks.task_options import CrossEntropyOptions


class CrossEntropy(nn.Module):
    """The cross-entropy of scores (B, K) and labels, indices (B,) or shares (B, K), averaged over the batch."""

    def __init__(self, options: CrossEntropyOptions):
        super().__init__()

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels)
