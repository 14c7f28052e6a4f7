"""The tokens of plain vision transformers (Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbframe.layers.positions import resize_positions


class PatchTokens(nn.Module):
    """Patches behind class tokens and registers: (B, num_channels, H, W) -> (B, num_prefix + H / P * W / P, width).

    `grid` belongs to the learned positions of class tokens and patches, which are added at any size, resized with or
    without `antialias`; None: there are none. Registers (Darcet et al., arXiv:2309.16588) have no position; with None
    instead of 0 there is no table of them either.
    """

    def __init__(
        self,
        num_channels: int,
        width: int,
        patch: int,
        grid: tuple[int, int] | None,
        dropout: float,
        *,
        num_class_tokens: int = 1,
        num_registers: int | None = None,
        antialias: bool = False,
    ):
        super().__init__()
        self.grid, self.antialias = grid, antialias
        self.num_class_tokens = num_class_tokens
        self.num_prefix = num_class_tokens + (num_registers or 0)  # tokens before the patches
        self.patch = nn.Conv2d(num_channels, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, num_class_tokens, width))
        self.registers = None if num_registers is None else nn.Parameter(torch.zeros(1, num_registers, width))
        count = num_class_tokens + grid[0] * grid[1] if grid else 0
        self.positions = nn.Parameter(torch.zeros(1, count, width)) if grid else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        prefix: Tensor = self.cls_token
        if self.positions is not None:
            count = self.num_class_tokens
            prefix = prefix + self.positions[:, :count]
            x = x + resize_positions(self.positions[:, count:], grid, self.grid, self.antialias)
        if self.registers is not None:
            prefix = torch.cat([prefix, self.registers], dim=1)
        return self.dropout(torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1))


class PlacedPatches(nn.Module):
    """Patches without a class token: (B, num_channels, H, W) -> (B, H / P, W / P, width).

    `grid` belongs to the learned positions, which are added at any size; None: there are none. The table's first row
    belongs to the class token of pretraining. `padding` counts the pixels of zeros around the image.
    """

    def __init__(self, num_channels: int, width: int, patch: int, grid: tuple[int, int] | None, padding: int = 0):
        super().__init__()
        self.grid = grid
        self.patch = nn.Conv2d(num_channels, width, patch, patch, padding)
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width)) if grid else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1).contiguous()
        if self.positions is None:
            return x
        grid = (x.shape[1], x.shape[2])
        return x + resize_positions(self.positions[:, 1:], grid, self.grid).unflatten(1, grid)
