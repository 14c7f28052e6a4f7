"""The options of data sets for classification; light, so that errors come at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from bbframe.data.loading_options import FileOptions, LoadingOptions, MirrorOptions
from bbframe.schema import demand


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(MirrorOptions):
    """What happens at random to a training image, in the order of the YAML files. Whatever is left out is off."""

    crop_scale: tuple[float, float] | None = None  # a random part of the area, resized; null: as in evaluation
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)  # aspect ratios of that part, width by height
    degrees: float = 0.0  # rotation in [-degrees, degrees]
    translate: float = 0.0  # shift, as a fraction of the side
    auto_augment: Literal["randaugment", "trivialaugment", "autoaugment"] | None = None
    random_erasing: float = 0.0  # chance of blanking a rectangle
    mixup: float = 0.0  # alpha of the mixing weights; labels become (B, num_classes) probabilities
    cutmix: float = 0.0  # likewise; with both, each batch draws one of the two

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.crop_scale or (1, 1)
        demand(0 < low <= high <= 1, "data: augment.crop_scale", self.crop_scale, "must rise within 0..1")
        narrow, wide = self.crop_ratio
        demand(0 < narrow <= wide, "data: augment.crop_ratio", self.crop_ratio, "must rise above 0")
        demand(0 <= self.degrees <= 180, "data: augment.degrees", self.degrees, "must be within 0..180")
        demand(0 <= self.translate < 1, "data: augment.translate", self.translate, "must be a fraction, below 1")
        erasing = self.random_erasing
        demand(0 <= erasing <= 1, "data: augment.random_erasing", erasing, "must be within 0..1")
        demand(self.mixup >= 0, "data: augment.mixup", self.mixup, "must be 0 (off) or more")
        demand(self.cutmix >= 0, "data: augment.cutmix", self.cutmix, "must be 0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class ImageDataOptions(LoadingOptions):
    """What every data set of labelled images takes."""

    task = "classification"

    image_size: int | tuple[int, int] | None = None  # (height, width); null: what the backbone wants
    augment: AugmentOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(min(self.sides((1, 1), 1)) >= 1, "data: image_size", self.image_size, "must be 1 pixel or more")

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        size = preferred if self.image_size is None else self.image_size
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class DigitsOptions(ImageDataOptions):
    """scikit-learn's 1,797 scans of handwritten digits. A mirrored digit is no digit: no flip by default."""

    name: Literal["digits"] = "digits"
    num_workers: int | None = 0  # 8x8 pixels in memory: a process of their own would only cost time
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(degrees=10.0, translate=0.06))

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        side = math.ceil(32 / stride) * stride  # 32 is plenty for 8x8 pixels, and every stride gets a whole map
        return super().sides((side, side), stride)


@dataclass(frozen=True, kw_only=True)
class ImageFolderOptions(FileOptions, ImageDataOptions):
    """One sub-folder a class, under `root` itself or under root/train, root/val and root/test."""

    name: Literal["image_folder"] = "image_folder"
    root: str | None = None
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(crop_scale=(0.35, 1.0), flip=True))

    def __post_init__(self) -> None:
        ImageDataOptions.__post_init__(self)
        demand(bool(self.root), "data: root", self.root, "must be the folder of your images: data.root=path/to/images")
        FileOptions.__post_init__(self)
