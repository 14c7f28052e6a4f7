"""Layer normalisation of maps, and the norms that a hierarchical backbone gives to its selected maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He, arXiv:1803.08494) of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        # with channels last torch, no compiler, takes the variance as a difference of squares: 20 times the error
        return super().forward(x if torch.compiler.is_compiling() else x.contiguous())


class MapNorms(nn.ModuleDict):
    """One norm for each built stage, whatever is selected, so that the names of the weights never depend on it.

    Those of stages that are not selected take no gradient: every trainable parameter is used.
    """

    def __init__(self, channels: Mapping[str, int], selected: Sequence[str], eps: float):
        super().__init__({name: LayerNorm2d(count, eps=eps) for name, count in channels.items()})
        self.selected = list(selected)
        for name, norm in self.items():
            norm.requires_grad_(name in selected)

    def select_maps(self, selected: Sequence[str]) -> None:
        """Follow a new selection: the norms of its maps train as those of the old one did, the others do not."""
        old = [p.requires_grad for name in self.selected for p in self[name].parameters()]
        trainable = any(old) or not old  # a map may have no norm
        self.selected = list(selected)
        for name, norm in self.items():
            norm.requires_grad_(trainable and name in selected)
