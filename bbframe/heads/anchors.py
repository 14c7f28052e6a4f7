"""Anchors, and the pooling of regions, for levels of any stride.

torchvision derives a level's stride from the sizes of the image and of the map, and takes it for a power of two: both
are wrong for patches of 14 pixels. Here strides are the declared ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, box_area

RATIOS = (0.5, 1.0, 2.0)  # height / width


class Anchors(AnchorGenerator):
    """Anchors of `scales` times a level's stride in each of the `ratios` (height / width), at multiples of the stride.

    They are float32 whatever the type of the maps, since bfloat16 counts whole pixels only up to 256.
    """

    def __init__(self, strides: Sequence[float], scales: Sequence[float], ratios: Sequence[float]):
        sizes = tuple(tuple(scale * stride for scale in scales) for stride in strides)
        super().__init__(sizes, (tuple(ratios),) * len(strides))
        self.strides = list(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Boxes (num_ratios * num_scales, 4) around 0, not rounded: an anchor of 7 pixels is 7 pixels wide."""
        roots = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()[:, None]
        sides = torch.tensor(scales, dtype=dtype, device=device)[None, :]
        widths, heights = (sides / roots).flatten(), (sides * roots).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors (N, 4) of every image: level by level, row by row, those of one place together."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(x.shape[-2:]) for x in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, [[s, s] for s in self.strides]))
        return [anchors] * len(image_list.image_sizes)


class LevelMapper:
    """The level that a region is pooled from: eq. 1 of arXiv:1612.03144, for levels of any rising strides.

    A region of side s belongs at log2(stride) = 4 + log2(s / 224), rounded down. With other strides than powers of
    two, the border between two levels lies, as it does there, half an octave above the middle of their logarithms.
    """

    def __init__(self, strides: Sequence[float]):
        logs = [math.log2(stride) for stride in strides]
        self.borders = [(finer + coarser + 1) / 2 for finer, coarser in pairwise(logs)]

    def __call__(self, boxes: list[Tensor]) -> Tensor:
        """Level indices (N,) of boxes, a tensor (N_i, 4) for each image."""
        sides = torch.cat([box_area(x) for x in boxes]).sqrt()
        wanted = 4 + torch.log2(sides / 224) + 1e-6  # a border belongs to the coarser level
        return torch.bucketize(wanted, wanted.new_tensor(self.borders))


class RegionPool(MultiScaleRoIAlign):
    """torchvision's, which wants boxes and maps of one dtype: half-precision maps are pooled in float32."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        dtype = next(iter(x.values())).dtype
        pooled = super().forward({name: level.to(boxes[0].dtype) for name, level in x.items()}, boxes, image_shapes)
        return pooled.to(dtype)


def region_pool(strides: Sequence[float], size: int) -> RegionPool:
    """Pool regions to (size, size) from the first levels of a pyramid, which are named "0", "1" and so on."""
    pool = RegionPool([str(i) for i in range(len(strides))], output_size=size, sampling_ratio=2)
    pool.scales, pool.map_levels = [1 / stride for stride in strides], LevelMapper(strides)
    return pool
