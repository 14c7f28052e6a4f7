"""Heads that turn maps into class scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """Average the last map over its area, then one linear layer: (..., C, H, W) -> (B, num_classes)."""

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float):
        super().__init__()
        self.reads = [len(channels) - 1]  # the positions of the maps that it uses
        self.norm = nn.LayerNorm(channels[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fc(self.dropout(self.norm(maps[-1].mean(dim=(2, 3)))))


class MultiLevel(nn.Module):
    """Average every selected map over its area, join them, then one linear layer: -> (B, num_classes)."""

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float):
        super().__init__()
        self.reads = list(range(len(channels)))
        self.norms = nn.ModuleList(nn.LayerNorm(count) for count in channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(sum(channels), num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pooled = [norm(x.mean(dim=(2, 3))) for norm, x in zip(self.norms, maps, strict=True)]
        return self.fc(self.dropout(torch.cat(pooled, dim=1)))


CLASSIFIERS: dict[str, type[Linear] | type[MultiLevel]] = {"linear": Linear, "multi_level": MultiLevel}
