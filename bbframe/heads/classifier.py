"""Heads that turn maps into class scores: average pooling, then one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbframe.heads.head_options import ClassifierOptions


class LinearHead(nn.Module):
    """A linear layer on the average of the last map: maps (B, C_i, H_i, W_i) -> (B, num_classes)."""

    def __init__(self, options: ClassifierOptions, channels: Sequence[int], strides: Sequence[int], num_classes: int):
        super().__init__()
        self.reads = [len(channels) - 1]  # the positions of the maps that it uses
        self.norm = nn.LayerNorm(channels[-1])
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fc(self.dropout(self.norm(maps[-1].mean(dim=(2, 3)))))


class MultiLevelHead(nn.Module):
    """A linear layer on the joined averages of all selected maps: maps (B, C_i, H_i, W_i) -> (B, num_classes)."""

    def __init__(self, options: ClassifierOptions, channels: Sequence[int], strides: Sequence[int], num_classes: int):
        super().__init__()
        self.reads = list(range(len(channels)))
        self.norms = nn.ModuleList(nn.LayerNorm(count) for count in channels)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(sum(channels), num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pooled = [norm(x.mean(dim=(2, 3))) for norm, x in zip(self.norms, maps, strict=True)]
        return self.fc(self.dropout(torch.cat(pooled, dim=1)))
