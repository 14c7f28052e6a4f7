"""From a PIL image and its boxes to what a detector takes, by torchvision's transforms (v2).

A sample is a dict: `image`, a PIL image; and, where there is a target, `boxes` (N, 4) xyxy and `masks` (N, H, W) in
the image's pixels, `labels`, `crowd` and `area` (N,), and `size`. A step of training changes image, boxes and masks
together; an evaluation leaves the masks in the original's pixels, in which they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Mask, TVTensor

from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.pixels import ChosenTransforms, mirror_steps
from bbframe.imaging.image_fit import ToTensor, check_resized_size, scaled_sides, times
from bbframe.preprocessing import Preprocessing

Sample = dict[str, Any]
EACH = ("boxes", "labels", "crowd", "area", "masks")  # those with one entry an object


def select(sample: Sample, kept: Tensor) -> Sample:
    """The objects for which `kept` (N,) is true, as plain tensors."""
    return {k: v.as_subclass(Tensor)[kept] if k in EACH else v for k, v in sample.items()}


def tight(masks: Tensor) -> Tensor:
    """The boxes around masks: (N, H, W) -> (N, 4) float xyxy; zeros for a mask without any pixel."""
    ends = []
    for lines in (masks.amax(1) > 0, masks.amax(2) > 0):  # columns, then rows
        number, length = torch.arange(lines.shape[1]), lines.shape[1]
        ends.append((torch.where(lines, number, length).amin(1), torch.where(lines, number + 1, 0).amax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1).float() * (right > 0)[:, None]


class Wrap(nn.Module):
    """Tell torchvision which tensors are boxes and, if they change with the image, masks."""

    def __init__(self, masks: bool):
        super().__init__()
        self.masks = masks

    def forward(self, sample: Sample) -> Sample:
        width, height = sample["image"].size
        sample = {**sample, "scale": torch.ones(2)}
        if "boxes" in sample:
            sample["boxes"] = BoundingBoxes(sample["boxes"], format="XYXY", canvas_size=(height, width))
        if self.masks and "masks" in sample:
            sample["masks"] = Mask(sample["masks"])
        return sample


class Resize(nn.Module):
    """The shorter side becomes one of `sizes`, drawn at random, unless the longer one would then exceed `longest`.

    Without `sizes` an image is only made smaller, to fit `longest`.
    """

    def __init__(self, sizes: Sequence[int], longest: int | None, mode: InterpolationMode):
        super().__init__()
        self.sizes, self.longest, self.mode = sizes, longest, mode

    def forward(self, sample: Sample) -> Sample:
        drawn = int(torch.randint(len(self.sizes), ())) if len(self.sizes) > 1 else 0
        shorter = self.sizes[drawn] if self.sizes else None
        return _resized(sample, scaled_sides(sample["image"].size, shorter, self.longest), self.mode)


class ScaleJitter(nn.Module):
    """Resize to fit into `size` (height, width), times a random factor."""

    def __init__(self, size: tuple[int, int], factors: tuple[float, float], mode: InterpolationMode):
        super().__init__()
        self.size, self.factors, self.mode = size, factors, mode

    def forward(self, sample: Sample) -> Sample:
        width, height = sample["image"].size
        low, high = self.factors
        factor = low + (high - low) * float(torch.rand(()))
        factor *= min(self.size[0] / height, self.size[1] / width)
        return _resized(sample, times((width, height), factor), self.mode)


def _resized(sample: Sample, sides: tuple[int, int], mode: InterpolationMode) -> Sample:
    """Everything resized to (height, width); `scale` says how much that is."""
    width, height = sample["image"].size
    if sides == (height, width):
        return sample
    check_resized_size((width, height), sides)
    scale = sample["scale"] * torch.tensor([sides[1] / width, sides[0] / height])
    return {**_geometric(sample, lambda x: F.resize(x, list(sides), mode)), "scale": scale}


class RandomCrop(nn.Module):
    """A random part, at most `size` (height, width) large."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, sample: Sample) -> Sample:
        width, height = sample["image"].size
        sides = min(height, self.size[0]), min(width, self.size[1])
        top = int(torch.randint(height - sides[0] + 1, ()))
        left = int(torch.randint(width - sides[1] + 1, ()))
        return _geometric(sample, lambda x: F.crop(x, top, left, *sides))


class RefitBoxes(nn.Module):
    """Around a step that cuts pieces off: boxes that lost some are drawn anew around what is left of their masks."""

    def __init__(self, step: nn.Module):
        super().__init__()
        self.step = step

    def forward(self, sample: Sample) -> Sample:
        before = sample["boxes"]
        sample = self.step(sample)
        if "masks" in sample:
            boxes = F.clamp_bounding_boxes(sample["boxes"])
            sides, was = _widths_and_heights(boxes), _widths_and_heights(before)
            lost = (sides < was - 1e-3).any(1) & (sides > 0).all(1)
            boxes[lost] = tight(sample["masks"].as_subclass(Tensor)[lost])
            sample["boxes"] = boxes
        return sample


class Finish(nn.Module):
    """Plain tensors; boxes end at the border. In training, objects of which less than a pixel is left are gone.

    `finish_image` turns the PIL image into a tensor.
    """

    def __init__(self, finish_image: nn.Module, drop: bool):
        super().__init__()
        self.finish_image, self.drop = finish_image, drop

    def forward(self, sample: Sample) -> Sample:
        if "boxes" in sample:
            sample = {**sample, "boxes": F.clamp_bounding_boxes(sample["boxes"])}
            kept = torch.ones(len(sample["boxes"]), dtype=torch.bool)
            if self.drop:
                kept = (_widths_and_heights(sample["boxes"]) >= 1).all(1)
                if "masks" in sample:
                    kept &= sample["masks"].as_subclass(Tensor).amax((1, 2)) > 0
            sample = select(sample, kept)
        return {**sample, "image": self.finish_image(sample["image"])}


def _widths_and_heights(boxes: Tensor) -> Tensor:
    """Widths and heights, (N, 2)."""
    plain = boxes.as_subclass(Tensor)
    return plain[:, 2:] - plain[:, :2]


def _geometric(sample: Sample, change: Callable[[Any], Any]) -> Sample:
    """Change the image, and what `Wrap` says moves with it."""
    return {k: change(v) if isinstance(v, Image.Image | TVTensor) else v for k, v in sample.items()}


def eval_boxes(options: DetectionDataOptions, preprocessing: Preprocessing, num_channels: int) -> nn.Module:
    """What validation, test and prediction do to a sample, which may lack a target. No randomness.

    The boxes become those of the resized image; the masks stay in the pixels of the original.
    """
    end = Finish(ToTensor(num_channels), drop=False)
    return nn.Sequential(Wrap(masks=False), _usual_resize(options, preprocessing), end)


def train_boxes(options: DetectionDataOptions, preprocessing: Preprocessing, num_channels: int) -> nn.Module:
    """The augmentations of a sample, its boxes and masks included; they draw from torch's global generator alone.

    Raises ValueError for a change of colours where there are none.
    """
    mode, augment = InterpolationMode(preprocessing.interpolation), options.augment
    end = Finish(nn.Sequential(ToTensor(num_channels), ChosenTransforms(options.transforms)), drop=True)
    if augment is None:
        return nn.Sequential(Wrap(masks=True), _usual_resize(options, preprocessing), end)
    steps: list[nn.Module] = [Wrap(masks=True)]
    if augment.iou_crop:
        steps.append(RefitBoxes(v2.RandomIoUCrop()))
    if augment.scale_jitter is not None:
        assert augment.crop_size is not None
        steps.append(ScaleJitter(augment.crop_size, augment.scale_jitter, mode))
    elif augment.min_sizes is not None:
        steps.append(Resize(augment.min_sizes, options.max_size, mode))
    else:
        steps.append(_usual_resize(options, preprocessing))
    if augment.crop_size is not None:
        steps.append(RefitBoxes(RandomCrop(augment.crop_size)))
    flips, colors = mirror_steps(augment, num_channels)
    return nn.Sequential(*steps, *flips, *colors, end)


def _usual_resize(options: DetectionDataOptions, preprocessing: Preprocessing) -> Resize:
    sizes = [] if options.min_size is None else [options.min_size]
    return Resize(sizes, options.max_size, InterpolationMode(preprocessing.interpolation))
