"""From a PIL image to a uint8 tensor of the size that the backbone wants, by torchvision's transforms (v2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.images.image_options import AugmentOptions
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.pixels import ChosenTransforms, mirror_steps, settle
from bbframe.imaging.image_fit import Fit, ToTensor, to_picture
from bbframe.imaging.jpeg_file import JpegFile
from bbframe.preprocessing import BoxPreprocessing, Preprocessing
from bbframe.registry import PartOptions

POLICIES = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide, "autoaugment": v2.AutoAugment}


class ByteRandomResizedCrop(v2.RandomResizedCrop):
    """A random part of an image, resized by torch's kernels for bytes, which take a third of PIL's time.

    A PIL image stays one. Of a JPEG come the pixels, (C, H, W) uint8, without a way through PIL.
    """

    @property
    def takes_jpeg(self) -> bool:
        """Whether there is a kernel for bytes."""
        return self.interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)

    def forward(self, image: Image.Image | JpegFile) -> Image.Image | Tensor:
        return super().forward(image.pixels() if isinstance(image, JpegFile) else image)

    def transform(self, inpt: Image.Image | Tensor, params: dict[str, int]) -> Image.Image | Tensor:
        """PIL's values but for rounding, and where bicubic overshoots black or white; other modes are PIL's."""
        if not self.takes_jpeg:
            return super().transform(inpt, params)
        part = F.crop(inpt, **params)
        if isinstance(part, Tensor):
            return F.resize(part, self.size, self.interpolation, antialias=True)
        return F.to_pil_image(F.resize(F.pil_to_tensor(part), self.size, self.interpolation, antialias=True))


class ToPicture(nn.Module):
    """Pixels (C, H, W) uint8 -> a PIL image, for the steps whose values PIL decides."""

    def forward(self, image: Image.Image | Tensor) -> Image.Image:
        return to_picture(image)


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

    An image is a PIL image, or a JpegFile where `takes_jpeg` says so, which gives the same pixels.
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
    drawn: list[nn.Module] = []
    if augment.degrees or augment.translate:
        shift = (augment.translate, augment.translate)
        affine_mode = mode if mode is not InterpolationMode.LANCZOS else InterpolationMode.BICUBIC  # PIL has no other
        drawn.append(v2.RandomAffine(augment.degrees, shift, interpolation=affine_mode))
    drawn += colors
    if augment.auto_augment is not None:
        drawn.append(POLICIES[augment.auto_augment]())
    steps += [ToPicture(), *drawn] if drawn else []
    steps.append(ToTensor(num_channels))
    if augment.random_erasing:
        mean = [round(255 * value) for value in preprocessing.mean]  # 0 once normalised
        steps.append(v2.RandomErasing(augment.random_erasing, value=mean))
    return nn.Sequential(*steps, ChosenTransforms(chosen))


def takes_jpeg(transform: nn.Module) -> bool:
    """Whether a training transform takes a JpegFile too."""
    first = transform[0] if isinstance(transform, nn.Sequential) else transform
    return getattr(first, "takes_jpeg", False)


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


def eval_preprocessing(options: LoadingOptions, preprocessing: Preprocessing, num_channels: int) -> Preprocessing:
    """What an evaluation makes of an image, for images outside any data set: call it.

    `preprocessing` is the data module's, or the one saved with the backbone.
    """
    settled = settle(options, preprocessing, num_channels)
    if isinstance(options, DetectionDataOptions):
        return BoxPreprocessing(**vars(settled), min_size=options.min_size, max_size=options.max_size)
    return settled
