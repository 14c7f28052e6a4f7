"""The options of data sets for classification; light, so that errors come at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bbframe.data.loading_options import FileOptions, LoadingOptions, MirrorOptions, Workers
from bbframe.schema import Name, Range, Rate, Share, Sides, demand

Area = Annotated[float, Range(0, 1, low_open=True)]
Ratio = Annotated[float, Range(0.05, 20)]


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(MirrorOptions):
    """What happens at random to a training image, in the order of the YAML files. Whatever is left out is off."""

    crop_scale: tuple[Area, Area] | None = None  # a random part of the area, resized; null: as in evaluation
    crop_ratio: tuple[Ratio, Ratio] = (0.75, 4 / 3)  # aspect ratios of that part, width by height
    degrees: Annotated[float, Range(0, 180, "degrees")] = 0.0  # rotation in [-degrees, degrees]
    translate: Rate = 0.0  # shift, as a fraction of the side
    auto_augment: Literal["randaugment", "trivialaugment", "autoaugment"] | None = None
    random_erasing: Share = 0.0  # chance of blanking a rectangle
    mixup: Annotated[float, Range(0, 100)] = 0.0  # alpha of the mixing weights; labels become probabilities
    cutmix: Annotated[float, Range(0, 100)] = 0.0  # likewise; with both, each batch draws one of the two

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.crop_scale or (1, 1)
        demand(low <= high, "data: augment.crop_scale", self.crop_scale, "must rise within 0..1")
        narrow, wide = self.crop_ratio
        demand(narrow <= wide, "data: augment.crop_ratio", self.crop_ratio, "must rise within 0.05..20")


@dataclass(frozen=True, kw_only=True)
class ImageDataOptions(LoadingOptions):
    """What every data set of labelled images takes."""

    task = "classification"

    image_size: Sides | None = None  # (height, width); null: what the backbone wants
    augment: AugmentOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width = self.sides((1, 1), 1)
        size = 1 if self.batch_size == "auto" else self.batch_size
        rule = f"in batches of batch_size={size} has more than 2**30 pixels a batch, which no machine holds"
        demand(height * width * size <= 2**30, "data: image_size", self.image_size, rule)

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        size = preferred if self.image_size is None else self.image_size
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class DigitsOptions(ImageDataOptions):
    """scikit-learn's 1,797 scans of handwritten digits. A mirrored digit is no digit: no flip by default."""

    name: Literal["digits"] = "digits"
    num_workers: Workers | None = 0  # 8x8 pixels in memory: a process of their own would only cost time
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(degrees=10.0, translate=0.06))

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        side = math.ceil(32 / stride) * stride  # 32 is plenty for 8x8 pixels, and every stride gets a whole map
        return super().sides((side, side), stride)


@dataclass(frozen=True, kw_only=True)
class ImageFolderOptions(FileOptions, ImageDataOptions):
    """One sub-folder a class, under `root` itself or under root/train, root/val and root/test."""

    name: Literal["image_folder"] = "image_folder"
    root: Name | None = None
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(crop_scale=(0.35, 1.0), flip=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand_place(("root",), "must be the folder of your images: data.root=path/to/images")
