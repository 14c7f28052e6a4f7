"""From a PIL image to the pixels that a network takes, by torchvision's transforms (v2)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bbframe.imaging.image_files import MAX_PIXELS

LONGEST = 16  # times the aspect ratio of the target; of a longer image the middle is enough


class HowToFit(Protocol):
    """What `Fit` reads of a preprocessing."""

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the result."""

    @property
    def interpolation(self) -> str:
        """How pixels are interpolated."""

    @property
    def crop_pct(self) -> float:
        """The share of the shorter side that a centre crop keeps."""

    @property
    def crop_mode(self) -> str:
        """Whether there is a centre crop, or both sides are squashed."""


class Fit(nn.Module):
    """Resize to `size` as the checkpoint was evaluated: a centre crop, or both sides squashed.

    For the crop the image is first made to cover `size / crop_pct`, rounded down as timm and torchvision do.
    """

    def __init__(self, preprocessing: HowToFit):
        super().__init__()
        self.size, self.mode = preprocessing.size, InterpolationMode(preprocessing.interpolation)
        squash = preprocessing.crop_mode == "squash"
        # the small term keeps 224 / (224 / 375), the edge 375 of a processor, from becoming 374
        height, width = (int(side / preprocessing.crop_pct + 1e-6) for side in self.size)
        self.cover = None if squash else (height, width)

    def forward(self, image: Image.Image) -> Image.Image:
        if self.cover is None:
            return F.resize(image, list(self.size), self.mode)
        image = self._middle(image, self.cover)
        return F.center_crop(F.resize(image, self._covering(image.size), self.mode), list(self.size))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What is left of an image of a (width, height): left, top, right and bottom as shares of its sides."""
        if self.cover is None:
            return 0.0, 0.0, 1.0, 1.0
        middle = _long_middle(size, self.cover)
        high, wide = self._covering(middle)
        x = min(1.0, self.size[1] / wide) * middle[0] / size[0] / 2
        y = min(1.0, self.size[0] / high) * middle[1] / size[1] / 2
        return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y

    def _covering(self, size: tuple[int, int]) -> list[int]:
        """The (height, width) to which an image of a (width, height) is made."""
        assert self.cover is not None
        width, height = size
        if self.cover[0] * width > self.cover[1] * height:  # wider than the target: the heights meet
            return [self.cover[0], max(self.cover[1], int(self.cover[0] * width / height))]
        return [max(self.cover[0], int(self.cover[1] * height / width)), self.cover[1]]

    def _middle(self, image: Image.Image, cover: tuple[int, ...]) -> Image.Image:
        """What the crop can see of an image that is very long or very high, which would become huge."""
        width, height = _long_middle(image.size, cover)
        return image if (width, height) == image.size else F.center_crop(image, [height, width])


def _long_middle(size: tuple[int, int], cover: tuple[int, ...]) -> tuple[int, int]:
    width = min(size[0], math.ceil(LONGEST * size[1] * cover[1] / cover[0]))
    return width, min(size[1], math.ceil(LONGEST * size[0] * cover[0] / cover[1]))


class ToTensor(nn.Module):
    """PIL image, or its pixels (C, H, W) uint8 -> (num_channels, H, W) uint8.

    A greyscale image is repeated; colours become grey for one channel.
    """

    def __init__(self, num_channels: int):
        super().__init__()
        self.num_channels = num_channels

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        if self.num_channels == 1:
            image = to_picture(image).convert("L")
        pixels = F.pil_to_tensor(image) if isinstance(image, Image.Image) else image
        return pixels.expand(self.num_channels, -1, -1)


def to_picture(image: Image.Image | Tensor) -> Image.Image:
    """A PIL image in mode L or RGB, which may be given as its pixels (C, H, W) uint8."""
    return image if isinstance(image, Image.Image) else F.to_pil_image(image)


def scaled_sides(size: tuple[int, int], shorter: int | None, longest: int | None) -> tuple[int, int]:
    """The (height, width) of an image of a (width, height) whose shorter side becomes `shorter`.

    It is smaller where the longer side would exceed `longest`. Without `shorter` it only shrinks, to fit `longest`.
    """
    factor = 1.0 if shorter is None else shorter / min(size)
    return times(size, factor if longest is None else min(factor, longest / max(size)))


def times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """The (height, width) of an image of a (width, height) times a factor, in whole pixels, rounded down."""
    width, height = size
    # the small term keeps 800 / 375 * 375 from becoming 799
    return max(1, int(height * factor + 1e-6)), max(1, int(width * factor + 1e-6))


def check_resized_size(size: tuple[int, int], sides: tuple[int, int]) -> None:
    """Raise ValueError if an image of a (width, height) would become a huge one of these (height, width)."""
    if sides[0] * sides[1] > max(MAX_PIXELS, size[0] * size[1]):
        (width, height), (high, wide) = size, sides
        raise ValueError(f"{width}x{height} would become {wide}x{high} pixels; set data.max_size, say to 1333")


def resize(image: Image.Image, sides: tuple[int, int], interpolation: str) -> Image.Image:
    """An image made to a (height, width)."""
    same = sides == (image.height, image.width)
    return image if same else F.resize(image, list(sides), InterpolationMode(interpolation))


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(..., C, H, W) uint8 -> float, by the mean and standard deviation (C,) of pixels in 0..1."""
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return values.sub_(255 * mean.view(-1, 1, 1)).div_(255 * std.view(-1, 1, 1))


def normalisation(values: tuple[float, ...], num_channels: int) -> tuple[float, ...]:
    """A mean or std for `num_channels`: one value serves all channels; for a single channel three are averaged."""
    if len(values) == num_channels:
        return values
    if num_channels == 1:
        return (sum(values) / len(values),)
    if len(values) == 1:
        return values * num_channels
    raise ValueError(f"data: {len(values)} values of mean or std for {num_channels} channels")
