"""What every task does to pixels: channels, changes of colour, and the checkpoint's mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bbframe.data.loading_options import LoadingOptions, MirrorOptions
from bbframe.preprocessing import Preprocessing
from bbframe.registry import PartOptions, make


class ToTensor(nn.Module):
    """PIL image -> (num_channels, H, W) uint8. A greyscale image is repeated; colours become grey for one channel."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.num_channels = num_channels

    def forward(self, image: Image.Image) -> Tensor:
        if self.num_channels == 1 and image.mode != "L":
            image = image.convert("L")
        return F.pil_to_tensor(image).expand(self.num_channels, -1, -1)


class ChosenTransforms(nn.Module):
    """The transforms that a configuration chooses, one after another: (C, H, W) uint8 -> (C, H, W) uint8."""

    def __init__(self, options: Sequence[PartOptions]):
        super().__init__()
        self.steps = [(choice.name, make("transform", choice)) for choice in options]

    def forward(self, image: Tensor) -> Tensor:
        for name, step in self.steps:
            changed = step(image)
            if (changed.shape, changed.dtype) != (image.shape, image.dtype):
                raise ValueError(
                    f"data: the transform {name!r} must keep shape and type, {tuple(image.shape)} {image.dtype}; it "
                    f"returned {tuple(changed.shape)} {changed.dtype}"
                )
            image = changed
        return image


def mirror_steps(augment: MirrorOptions, num_channels: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """The flips of a training image, and the changes of its colours.

    Raises ValueError for a change of colours where there are none.
    """
    flips: list[nn.Module] = []
    if augment.flip:
        flips.append(v2.RandomHorizontalFlip())
    if augment.vertical_flip:
        flips.append(v2.RandomVerticalFlip())
    if augment.color_jitter is None:
        return flips, []
    augment.check_channels(num_channels)
    return flips, [v2.ColorJitter(*augment.color_jitter)]


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(..., C, H, W) uint8 -> float, by the mean and standard deviation (C,) of pixels in 0..1."""
    return pixels.float().sub_(255 * mean.view(-1, 1, 1)).div_(255 * std.view(-1, 1, 1))


def normalisation(values: tuple[float, ...], num_channels: int) -> tuple[float, ...]:
    """A mean or std for `num_channels`: one value serves all channels; for a single channel three are averaged."""
    if len(values) == num_channels:
        return values
    if num_channels == 1:
        return (sum(values) / len(values),)
    if len(values) == 1:
        return values * num_channels
    raise ValueError(f"data: {len(values)} values of mean or std for {num_channels} channels")


def settle(options: LoadingOptions, preprocessing: Preprocessing, num_channels: int) -> Preprocessing:
    """The checkpoint's preprocessing, changed as the options say. Raises ValueError for other than 1 or 3 channels."""
    options.check_channels(num_channels)
    return replace(
        preprocessing,
        mean=normalisation(options.mean or preprocessing.mean, num_channels),
        std=normalisation(options.std or preprocessing.std, num_channels),
        interpolation=options.interpolation or preprocessing.interpolation,
    )
