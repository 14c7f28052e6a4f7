"""From a PIL image to a uint8 tensor of the size that the backbone wants, by torchvision's transforms (v2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor, nn, tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.boxes.box_transforms import eval_boxes
from bbframe.data.images.image_options import AugmentOptions
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.pixels import ChosenTransforms, ToTensor, mirror_steps, normalise, settle
from bbframe.preprocessing import Preprocessing
from bbframe.registry import PartOptions

LONGEST = 16  # times the aspect ratio of the target; of a longer image the middle is enough
POLICIES = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide, "autoaugment": v2.AutoAugment}


class Fit(nn.Module):
    """Resize to `size` as the checkpoint was evaluated: a centre crop, or both sides squashed.

    For the crop the image is first made to cover `size / crop_pct`, rounded down as timm and torchvision do.
    """

    def __init__(self, preprocessing: Preprocessing):
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


class ByteRandomResizedCrop(v2.RandomResizedCrop):
    """A random part of a PIL image, resized by torch's kernels for bytes, which take a third of PIL's time."""

    def transform(self, inpt: Image.Image, params: dict[str, int]) -> Image.Image:
        """PIL's values but for rounding, and where bicubic overshoots black or white; other modes are PIL's."""
        if self.interpolation not in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
            return super().transform(inpt, params)
        part = F.pil_to_tensor(F.crop(inpt, **params))
        return F.to_pil_image(F.resize(part, self.size, self.interpolation, antialias=True))


def eval_transform(preprocessing: Preprocessing, num_channels: int) -> nn.Module:
    """What validation, test and prediction do to an image. No randomness."""
    return nn.Sequential(Fit(preprocessing), ToTensor(num_channels))


def train_transform(
    preprocessing: Preprocessing,
    num_channels: int,
    augment: AugmentOptions | None,
    chosen: Sequence[PartOptions] = (),
) -> nn.Module:
    """The augmentations of one image, then the `chosen` transforms; all draw from torch's global generator alone.

    Raises ValueError for a change of colours where there are none.
    """
    if augment is None:
        return nn.Sequential(eval_transform(preprocessing, num_channels), ChosenTransforms(chosen))
    mode = InterpolationMode(preprocessing.interpolation)
    steps: list[nn.Module] = [Fit(preprocessing)]
    if augment.crop_scale is not None:
        steps = [ByteRandomResizedCrop(preprocessing.size, augment.crop_scale, augment.crop_ratio, mode)]
    flips, colors = mirror_steps(augment, num_channels)
    steps += flips
    if augment.degrees or augment.translate:
        shift = (augment.translate, augment.translate)
        affine_mode = mode if mode is not InterpolationMode.LANCZOS else InterpolationMode.BICUBIC  # PIL has no other
        steps.append(v2.RandomAffine(augment.degrees, shift, interpolation=affine_mode))
    steps += colors
    if augment.auto_augment is not None:
        steps.append(POLICIES[augment.auto_augment]())
    steps.append(ToTensor(num_channels))
    if augment.random_erasing:
        mean = [round(255 * value) for value in preprocessing.mean]  # 0 once normalised
        steps.append(v2.RandomErasing(augment.random_erasing, value=mean))
    return nn.Sequential(*steps, ChosenTransforms(chosen))


def batch_mix(
    augment: AugmentOptions | None, num_classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """MixUp or CutMix of a whole batch, (B, C, H, W) and (B,) -> (B, C, H, W) and (B, num_classes), if asked for."""
    mixers: list[nn.Module] = []
    if augment and augment.mixup:
        mixers.append(v2.MixUp(alpha=augment.mixup, num_classes=num_classes))
    if augment and augment.cutmix:
        mixers.append(v2.CutMix(alpha=augment.cutmix, num_classes=num_classes))
    return v2.RandomChoice(mixers) if len(mixers) > 1 else mixers[0] if mixers else None


def eval_input(
    options: LoadingOptions, preprocessing: Preprocessing, num_channels: int
) -> Callable[[Image.Image], tuple[Tensor, tuple[float, float]]]:
    """What an evaluation makes of an image, for images outside any data set.

    `preprocessing` is the data module's, or the one saved with the backbone. The function returns the normalised
    pixels (C, H, W), and the (x, y) by which detection scaled the image, (1, 1) for classification.
    """
    preprocessing = settle(options, preprocessing, num_channels)
    mean, std = tensor(preprocessing.mean), tensor(preprocessing.std)
    if isinstance(options, DetectionDataOptions):
        boxed = eval_boxes(options, preprocessing, num_channels)

        def scaled(image: Image.Image) -> tuple[Tensor, tuple[float, float]]:
            sample = boxed({"image": image})
            return normalise(sample["image"], mean, std), tuple(sample["scale"].tolist())

        return scaled
    fit = eval_transform(preprocessing, num_channels)
    return lambda image: (normalise(fit(image), mean, std), (1.0, 1.0))
