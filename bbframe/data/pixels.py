"""What every task does to pixels: changes of colour, transforms of a user's own, the checkpoint's normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torchvision.transforms import v2

from bbframe.data.loading_options import LoadingOptions, MirrorOptions
from bbframe.imaging.image_fit import normalisation
from bbframe.preprocessing import Preprocessing
from bbframe.registry import PartOptions, make


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


def settle(options: LoadingOptions, preprocessing: Preprocessing, num_channels: int) -> Preprocessing:
    """The checkpoint's preprocessing, changed as the options say. Raises ValueError for other than 1 or 3 channels."""
    options.check_channels(num_channels)
    return replace(
        preprocessing,
        mean=normalisation(options.mean or preprocessing.mean, num_channels),
        std=normalisation(options.std or preprocessing.std, num_channels),
        interpolation=options.interpolation or preprocessing.interpolation,
    )
