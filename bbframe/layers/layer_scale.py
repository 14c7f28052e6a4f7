"""Layer scale (Touvron et al., "Going Deeper with Image Transformers", arXiv:2103.17239)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiply each channel of the last dimension by a learned factor, `value` at first."""

    def __init__(self, channels: int, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x
