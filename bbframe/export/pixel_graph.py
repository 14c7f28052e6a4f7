"""What a network's preprocessing does to pixels, as a graph: images of bytes in, normalised images out.

Resizing is PIL's, which every run trains and is tested with: antialiased, first along rows and then along columns, and
rounded to whole levels after each. A matrix holds the weights of each output pixel, and is made inside the graph from
the sizes that come. Pillow 13 takes columns first where a height shrinks most. That changes a few levels where a
bicubic or Lanczos filter overshoots black or white, in about 2 % of the pixels of such an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LONGEST = 16  # times the aspect ratio of the target; of a longer image the middle is taken, as `Fit` does
RESIZED = ("bilinear", "bicubic", "lanczos")  # "nearest" has ties, which PIL decides by its rounding errors
RED, GREEN, BLUE = 19595, 38470, 7471  # PIL's grey, in 65536ths


def kernel(name: str, x: Tensor) -> Tensor:
    """The weight of an input pixel at a distance `x` >= 0 from an output pixel's centre, in pixels of the coarser."""
    if name == "bilinear":
        return (1 - x).clamp(min=0)
    if name == "bicubic":  # with a = -0.5
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    angle = (x * math.pi).clamp(min=1e-4)
    return torch.where(x < 3, torch.sin(angle) / angle * torch.sin(angle / 3) / (angle / 3), 0.0)


def weights(name: str, columns: Tensor, before: Tensor, after: Tensor, chosen: Tensor) -> Tensor:
    """What each input pixel gives to each output pixel, (len(chosen), len(columns)) float; rows sum to 1.

    `before` pixels become `after`. The input pixels are numbered by `columns`, of which those outside 0..before - 1
    count for nothing; the output pixels asked for are `chosen`.
    """
    inside = ((columns >= 0) & (columns < before))[None, :]
    # whole numbers, so that the distance of two centres is exact: (x + 1/2) - (y + 1/2) * before / after
    apart = (columns * 2 + 1)[None, :] * after - ((chosen * 2 + 1) * before)[:, None]
    distance = apart.abs().float() / (torch.maximum(before, after) * 2).float()
    shares = torch.where(inside, kernel(name, distance), 0.0)
    return shares / shares.sum(dim=1, keepdim=True)


def whole_levels(x: Tensor) -> Tensor:
    """Rounded to 0, 1, ..., 255, halves up."""
    return (x + 0.5).floor().clamp(0, 255)


def half_to_even(x: Tensor) -> Tensor:
    """x / 2 for whole x >= 0, halves to the even number, as Python rounds where torchvision cuts out a centre."""
    half = x // 2
    return half + (x % 2) * (half % 2)


def smaller(x: Any, y: Any) -> Any:
    """The smaller of two whole numbers: tensors, as TorchScript's tracer wants sides, or torch.export's symbols."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return torch.minimum(torch.as_tensor(x), torch.as_tensor(y))
    return torch.sym_min(x, y)


class PixelGraph(nn.Module):
    """Images (B, 3, H, W) uint8, red green blue -> normalised images (B, C, H', W') float32.

    `mean` and `std` have one value for each of C channels, 1 (grey) or 3, of pixels in 0..1.
    """

    def __init__(self, interpolation: str, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.interpolation, self.grey = interpolation, len(mean) == 1
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def resized(self, images: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Images (B, 3, H, W) by the weights (H', H) and (W', W) -> normalised images (B, C, H', W')."""
        x = whole_levels(torch.matmul(images.float(), across.t()))
        x = whole_levels(torch.matmul(down, x))
        if self.grey:
            red, green, blue = x.to(torch.int64).unbind(dim=1)
            x = ((red * RED + green * GREEN + blue * BLUE + 32768) // 65536)[:, None].float()
        return (x - self.mean) / self.std


class FittedPixels(PixelGraph):
    """`Fit`: images cover `size / crop_pct` and their centre of `size` is cut out, or they are squashed to `size`."""

    def __init__(
        self,
        size: tuple[int, int],
        crop_pct: float | None,
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__(interpolation, mean, std)
        self.size = size
        self.cover = None if crop_pct is None else tuple(int(side / crop_pct + 1e-6) for side in size)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
        high, wide = rows[-1] + 1, columns[-1] + 1
        chosen = [torch.arange(side, device=images.device) for side in self.size]
        if self.cover is None:
            height, width = (torch.full_like(high, side) for side in self.size)
            down = weights(self.interpolation, rows, high, height, chosen[0])
            return self.resized(images, down, weights(self.interpolation, columns, wide, width, chosen[1]))
        cover_high, cover_wide = self.cover
        seen_wide = torch.minimum(wide, -(-LONGEST * high * cover_wide // cover_high))
        seen_high = torch.minimum(high, -(-LONGEST * wide * cover_high // cover_wide))
        rows, columns = rows - half_to_even(high - seen_high), columns - half_to_even(wide - seen_wide)
        height = (cover_wide * seen_high // seen_wide).clamp(min=cover_high)
        width = (cover_high * seen_wide // seen_high).clamp(min=cover_wide)
        top, left = half_to_even(height - self.size[0]), half_to_even(width - self.size[1])
        down = weights(self.interpolation, rows, seen_high, height, chosen[0] + top)
        across = weights(self.interpolation, columns, seen_wide, width, chosen[1] + left)
        return self.resized(images, down, across)


class ScaledPixels(PixelGraph):
    """Detection's: the shorter side becomes `min_size` unless the longer one would then exceed `max_size`."""

    def __init__(
        self,
        min_size: int | None,
        max_size: int | None,
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__(interpolation, mean, std)
        self.min_size, self.max_size = min_size, max_size

    def new_sides(self, height: int, width: int) -> list[int]:
        """The (height, width) after resizing, rounded down to whole pixels."""
        short, long = smaller(height, width), -smaller(-height, -width)
        sides = []
        for side in (height, width):
            limits = [] if self.min_size is None else [side * self.min_size // short]
            if self.max_size is not None:
                limit = side * self.max_size // long
                limits.append(limit if limits else smaller(limit, side))
            new = side if not limits else limits[0] if len(limits) == 1 else smaller(*limits)
            sides.append(-smaller(-1, -new))
        return sides

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images, and by which factors x and y were scaled, (2,)."""
        sides = [torch.arange(side, device=images.device) for side in images.shape[-2:]]
        chosen = [torch.arange(side, device=images.device) for side in self.new_sides(*images.shape[-2:])]
        before, after = ([x[-1] + 1 for x in some] for some in (sides, chosen))
        down, across = (weights(self.interpolation, *each) for each in zip(sides, before, after, chosen, strict=True))
        scale = torch.stack([after[1] / before[1], after[0] / before[0]])
        return self.resized(images, down, across), scale
