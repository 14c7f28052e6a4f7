"""A loss, a head and a data set of one's own, as a user would write them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from bbframe.data import ImageDataOptions
from bbframe.data.data_module import ImageDataModule
from bbframe.heads import ClassifierOptions
from bbframe.registry import register


@dataclass(frozen=True, kw_only=True)
class FocalOptions:
    name: str = "focal"
    gamma: float = 2.0


@register("loss", "focal", FocalOptions)
class Focal(nn.Module):
    """Focal loss (Lin et al., arXiv:1708.02002): easy images count less."""

    def __init__(self, options):
        super().__init__()
        self.gamma = options.gamma

    def forward(self, scores, labels):
        losses = F.cross_entropy(scores, labels, reduction="none")
        return ((1 - (-losses).exp()).clamp(min=0) ** self.gamma * losses).mean()


@dataclass(frozen=True, kw_only=True)
class MaxPoolOptions(ClassifierOptions):
    name: str = "max_pool"
    hidden: int = 16


@register("head", "max_pool", MaxPoolOptions)
class MaxPoolHead(nn.Module):
    """A small perceptron on the maximum of the last map."""

    def __init__(self, options, channels, strides, num_classes):
        super().__init__()
        self.reads = [len(channels) - 1]
        self.mlp = nn.Sequential(
            nn.Linear(channels[-1], options.hidden), nn.GELU(), nn.Linear(options.hidden, num_classes)
        )

    def forward(self, maps):
        return self.mlp(maps[-1].amax(dim=(2, 3)))


class Stripes:
    """Pictures of stripes: class 0 is horizontal, class 1 vertical."""

    def __init__(self, count):
        self.labels = [i % 2 for i in range(count)]

    def read(self, index):
        stripes = (torch.arange(16) % 4 < 2).byte().mul(255).expand(16, 16)
        return Image.fromarray((stripes if self.labels[index] else stripes.T).contiguous().numpy())

    def name(self, index):
        return f"stripes {index}"


@dataclass(frozen=True, kw_only=True)
class StripesOptions(ImageDataOptions):
    name: str = "stripes"
    batch_size: int = 4
    num_workers: int | None = 0
    count: int = 8


@register("data", "stripes", StripesOptions)
class StripesData(ImageDataModule):
    def __init__(self, options, **settings):
        parts = {part: Stripes(options.count) for part in ("train", "val", "test")}
        super().__init__(options, parts, ["horizontal", "vertical"], **settings)
