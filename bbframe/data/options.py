"""The options of every data set. Nothing heavy is imported: a configuration is checked before torch is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def check(ok: bool, where: str, value: object, rule: str) -> None:
    """Raise the ValueError that names an option, its value and the rule it breaks."""
    if not ok:
        raise ValueError(f"data: {where}={value!r} {rule}")


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """What happens at random to a training image, in this order. Whatever is left out is off."""

    crop_scale: tuple[float, float] | None = None  # a random part of the area, resized; null: as in evaluation
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)  # aspect ratios of that part, width by height
    flip: bool = False
    vertical_flip: bool = False
    degrees: float = 0.0  # rotation in [-degrees, degrees]
    translate: float = 0.0  # shift, as a fraction of the side
    color_jitter: tuple[float, float, float, float] | None = None  # brightness, contrast, saturation, hue
    auto_augment: Literal["randaugment", "trivialaugment", "autoaugment"] | None = None
    random_erasing: float = 0.0  # chance of blanking a rectangle
    mixup: float = 0.0  # alpha of the mixing weights; labels become (B, num_classes) probabilities
    cutmix: float = 0.0  # likewise; with both, each batch draws one of the two

    def __post_init__(self) -> None:
        if self.crop_scale is not None:
            low, high = self.crop_scale
            check(0 < low <= high <= 1, "augment.crop_scale", self.crop_scale, "must rise within 0..1")
        check(0 < self.crop_ratio[0] <= self.crop_ratio[1], "augment.crop_ratio", self.crop_ratio, "must rise above 0")
        check(0 <= self.degrees <= 180, "augment.degrees", self.degrees, "must be within 0..180")
        check(0 <= self.translate < 1, "augment.translate", self.translate, "must be a fraction, below 1")
        if self.color_jitter is not None:
            good = min(self.color_jitter) >= 0 and self.color_jitter[3] <= 0.5
            check(good, "augment.color_jitter", self.color_jitter, "must be 0 or more, and the last, the hue, 0..0.5")
        check(0 <= self.random_erasing <= 1, "augment.random_erasing", self.random_erasing, "must be within 0..1")
        check(self.mixup >= 0, "augment.mixup", self.mixup, "must be 0 (off) or more")
        check(self.cutmix >= 0, "augment.cutmix", self.cutmix, "must be 0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What every data set of labelled images takes."""

    batch_size: int = 64
    num_workers: int | None = None  # processes that load images; 0: the training process; null: a core each, up to 8
    timeout: int = 300  # seconds that a batch may take to come from a worker
    image_size: int | tuple[int, int] | None = None  # (height, width); null: what the backbone wants
    mean: tuple[float, ...] | None = None  # null: the checkpoint's, as for the two that follow
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    augment: AugmentOptions | None = None

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "batch_size", self.batch_size, "must be 1 or more")
        check(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "must be 0 or more")
        check(self.timeout >= 1, "timeout", self.timeout, "must be 1 second or more")
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size or 1,)
        check(self.image_size != 0 and min(sides) >= 1, "image_size", self.image_size, "must be 1 pixel or more")
        for name, value in (("mean", self.mean), ("std", self.std)):
            check(value is None or len(value) in (1, 3), name, value, "must be 1 or 3 numbers")
        check(self.std is None or min(self.std) > 0, "std", self.std, "must be above 0")

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        """The (height, width) that the network sees: unless set, the checkpoint's; `stride` is the map's largest."""
        size = self.image_size or preferred
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class DigitsOptions(DataOptions):
    """scikit-learn's 1,797 scans of handwritten digits. A mirrored digit is no digit: no flip by default."""

    name: Literal["digits"] = "digits"
    num_workers: int | None = 0  # 8x8 pixels in memory: a process of their own would only cost time
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(degrees=10.0, translate=0.06))

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        side = math.ceil(32 / stride) * stride  # 32 is plenty for 8x8 pixels, and every stride gets a whole map
        return super().sides((side, side), stride)


@dataclass(frozen=True, kw_only=True)
class ImageFolderOptions(DataOptions):
    """One sub-folder a class, under `root` itself or under root/train, root/val and root/test."""

    name: Literal["image_folder"] = "image_folder"
    root: str | None = None
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(crop_scale=(0.35, 1.0), flip=True))
    val_fraction: float | None = None  # of each class, where there is no val folder; null: 0.15
    test_fraction: float | None = None  # likewise; null: 0.15 without a train folder, else none
    split_seed: int = 0
    verify: bool = True  # read the header of every file before training
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: int = 100  # unreadable files that "skip" puts up with

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.root), "root", self.root, "must be the folder of your images: data.root=path/to/images")
        val, test = self.val_fraction, self.test_fraction
        check(val is None or 0 < val < 1, "val_fraction", val, "must be above 0 and below 1")
        check(test is None or 0 <= test < 1, "test_fraction", test, "must be 0 or more and below 1")
        rest = 1 - (0.15 if val is None else val) - (0.15 if test is None else test)
        check(rest > 0, "val_fraction", val, f"and test_fraction={test} leave nothing for training")
        check(self.max_errors >= 0, "max_errors", self.max_errors, "must be 0 or more")


OPTIONS: dict[str, type[Any]] = {"digits": DigitsOptions, "image_folder": ImageFolderOptions}
