"""The tokens of plain vision transformers (Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbframe.layers.positions import resize_positions


class PatchTokens(nn.Module):
    """Patches behind a class token: (B, num_channels, H, W) -> (B, 1 + H / patch * W / patch, width).

    `grid` belongs to the learned positions, which are added at any size; None: there are none.
    """

    def __init__(self, num_channels: int, width: int, patch: int, grid: tuple[int, int] | None, dropout: float):
        super().__init__()
        self.grid = grid
        self.patch = nn.Conv2d(num_channels, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width)) if grid else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        cls_token: Tensor = self.cls_token
        if self.positions is not None:
            cls_token = cls_token + self.positions[:, :1]
            x = x + resize_positions(self.positions[:, 1:], grid, self.grid)
        return self.dropout(torch.cat([cls_token.expand(x.shape[0], -1, -1), x], dim=1))
