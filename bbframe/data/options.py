"""The options of every data set. Nothing heavy is imported: a configuration is checked before torch is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def check(ok: bool, where: str, value: object, rule: str) -> None:
    """Raise the ValueError that names an option, its value and the rule it breaks."""
    if not ok:
        raise ValueError(f"data: {where}={value!r} {rule}")


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    """The changes of a training image that every task knows."""

    flip: bool = False
    vertical_flip: bool = False
    color_jitter: tuple[float, float, float, float] | None = None  # brightness, contrast, saturation, hue

    def __post_init__(self) -> None:
        if self.color_jitter is not None:
            good = min(self.color_jitter) >= 0 and self.color_jitter[3] <= 0.5
            check(good, "augment.color_jitter", self.color_jitter, "must be 0 or more, and the last, the hue, 0..0.5")


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
        if self.crop_scale is not None:
            low, high = self.crop_scale
            check(0 < low <= high <= 1, "augment.crop_scale", self.crop_scale, "must rise within 0..1")
        check(0 < self.crop_ratio[0] <= self.crop_ratio[1], "augment.crop_ratio", self.crop_ratio, "must rise above 0")
        check(0 <= self.degrees <= 180, "augment.degrees", self.degrees, "must be within 0..180")
        check(0 <= self.translate < 1, "augment.translate", self.translate, "must be a fraction, below 1")
        check(0 <= self.random_erasing <= 1, "augment.random_erasing", self.random_erasing, "must be within 0..1")
        check(self.mixup >= 0, "augment.mixup", self.mixup, "must be 0 (off) or more")
        check(self.cutmix >= 0, "augment.cutmix", self.cutmix, "must be 0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class DetectionAugmentOptions(MirrorOptions):
    """What happens at random to a training image and its boxes, in the order of the YAML files.

    `scale_jitter` and `crop_size` make arXiv:2012.07177's large-scale jitter; `iou_crop` is arXiv:1512.02325's.
    """

    iou_crop: bool = False  # a random part of the image in which some boxes keep much of their area
    min_sizes: tuple[int, ...] | None = None  # one is drawn in place of data.min_size
    scale_jitter: tuple[float, float] | None = None  # the image fits into crop_size, times a factor from this range
    crop_size: tuple[int, int] | None = None  # (height, width) of the largest random part that is kept after resizing

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes, crop = self.min_sizes, self.crop_size
        check(sizes is None or min(sizes, default=0) >= 1, "augment.min_sizes", sizes, "must be 1 pixel or more each")
        check(crop is None or min(crop) >= 1, "augment.crop_size", crop, "must be 1 pixel or more")
        if self.scale_jitter is not None:
            low, high = self.scale_jitter
            check(0 < low <= high, "augment.scale_jitter", self.scale_jitter, "must rise above 0, say [0.1, 2]")
            check(crop is not None, "augment.scale_jitter", self.scale_jitter, "needs augment.crop_size, to fit into")
            check(sizes is None, "augment.min_sizes", sizes, "must be null beside scale_jitter: both say how large")


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """What every data set takes, whatever the `task` that it is for."""

    task: ClassVar[Literal["classification", "detection"]]

    batch_size: int = 64
    num_workers: int | None = None  # processes that load images; 0: the training process; null: a core each, up to 8
    timeout: int = 300  # seconds that a batch may take to come from a worker
    mean: tuple[float, ...] | None = None  # null: the checkpoint's, as for the two that follow
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "batch_size", self.batch_size, "must be 1 or more")
        check(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "must be 0 or more")
        check(self.timeout >= 1, "timeout", self.timeout, "must be 1 second or more")
        for name, value in (("mean", self.mean), ("std", self.std)):
            check(value is None or len(value) in (1, 3), name, value, "must be 1 or 3 numbers")
        check(self.std is None or min(self.std) > 0, "std", self.std, "must be above 0")


@dataclass(frozen=True, kw_only=True)
class DataOptions(LoadingOptions):
    """What every data set of labelled images takes."""

    task = "classification"

    image_size: int | tuple[int, int] | None = None  # (height, width); null: what the backbone wants
    augment: AugmentOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size or 1,)
        check(self.image_size != 0 and min(sides) >= 1, "image_size", self.image_size, "must be 1 pixel or more")

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        """The (height, width) that the network sees: unless set, the checkpoint's; `stride` is the map's largest."""
        size = self.image_size or preferred
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class DetectionDataOptions(LoadingOptions):
    """What every data set of images with boxes takes. Images keep their aspect ratio."""

    task = "detection"

    batch_size: int = 8
    min_size: int | None = None  # the shorter side once resized; null: as it is
    max_size: int | None = None  # unless the longer one would then exceed this
    augment: DetectionAugmentOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.min_size, self.max_size
        sizes = self.augment.min_sizes if self.augment else None
        check(least is None or least >= 1, "min_size", least, "must be 1 pixel or more")
        check(
            most is None or most >= max(1, least or 1, *(sizes or ())), "max_size", most, "must be at least min_size"
        )


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What every data set of image files takes: how to set parts aside, and what to do about broken files."""

    val_fraction: float | None = None  # of each class, where there is no val folder; null: 0.15
    test_fraction: float | None = None  # likewise; null: 0.15 without a train folder, else none
    split_seed: int = 0
    verify: bool = True  # read the header of every file before training
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: int = 100  # unreadable files that "skip" puts up with

    def __post_init__(self) -> None:
        val, test = self.val_fraction, self.test_fraction
        check(val is None or 0 < val < 1, "val_fraction", val, "must be above 0 and below 1")
        check(test is None or 0 <= test < 1, "test_fraction", test, "must be 0 or more and below 1")
        rest = 1 - (0.15 if val is None else val) - (0.15 if test is None else test)
        check(rest > 0, "val_fraction", val, f"and test_fraction={test} leave nothing for training")
        check(self.max_errors >= 0, "max_errors", self.max_errors, "must be 0 or more")


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
class ImageFolderOptions(FileOptions, DataOptions):
    """One sub-folder a class, under `root` itself or under root/train, root/val and root/test."""

    name: Literal["image_folder"] = "image_folder"
    root: str | None = None
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(crop_scale=(0.35, 1.0), flip=True))

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        check(bool(self.root), "root", self.root, "must be the folder of your images: data.root=path/to/images")
        FileOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class DigitScenesOptions(DetectionDataOptions):
    """Scenes of scikit-learn's digits at random places: the same whatever the run's seed."""

    name: Literal["digit_scenes"] = "digit_scenes"
    batch_size: int = 16
    num_workers: int | None = 0  # small pictures in memory
    train_scenes: int = 1024
    val_scenes: int = 128
    test_scenes: int = 256
    image_size: int | tuple[int, int] = (96, 96)  # (height, width) of a scene
    num_digits: tuple[int, int] = (1, 8)  # in a scene: the fewest and the most, of those that find a place
    digit_size: tuple[int, int] = (16, 40)  # the side of a scan once resized: the smallest and the largest
    scene_seed: int = 0
    cache: str | None = None  # a folder in which the scenes are kept for the next run
    augment: DetectionAugmentOptions | None = field(default_factory=DetectionAugmentOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_scenes", "val_scenes", "test_scenes"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "must be 1 or more")
        check(1 <= self.num_digits[0] <= self.num_digits[1], "num_digits", self.num_digits, "must rise from 1 or more")
        low, high = self.digit_size
        check(8 <= low <= high, "digit_size", self.digit_size, "must rise from 8 pixels or more, the side of a scan")
        rule = f"must be at least the largest digit, digit_size={self.digit_size}"
        check(min(self.canvas) >= high, "image_size", self.image_size, rule)

    @property
    def canvas(self) -> tuple[int, int]:
        """The (height, width) of a scene."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


@dataclass(frozen=True, kw_only=True)
class FileDetectionOptions(FileOptions, DetectionDataOptions):
    """What every data set of image files with boxes takes: sizes that are usual for photographs, and mirroring."""

    min_size: int | None = 800
    max_size: int | None = 1333
    augment: DetectionAugmentOptions | None = field(default_factory=lambda: DetectionAugmentOptions(flip=True))

    def __post_init__(self) -> None:
        DetectionDataOptions.__post_init__(self)
        FileOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class CocoOptions(FileDetectionOptions):
    """Image folders, each with a JSON file of COCO's format."""

    name: Literal["coco"] = "coco"
    train_images: str | None = None
    train_annotations: str | None = None
    val_images: str | None = None
    val_annotations: str | None = None
    test_images: str | None = None
    test_annotations: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in ("train", "val", "test"):
            for kind, other, what in (("annotations", "images", "JSON file"), ("images", "annotations", "folder")):
                key, value, given = f"{part}_{kind}", getattr(self, f"{part}_{kind}"), getattr(self, f"{part}_{other}")
                rule = f"must be the {what} of your {part} images: data.{key}=path/to/it"
                check(bool(value) or (part != "train" and not given), key, value, rule)
            fraction = getattr(self, f"{part}_fraction", None)
            rule = f"must be null beside {part}_annotations"
            check(fraction is None or not getattr(self, f"{part}_annotations"), f"{part}_fraction", fraction, rule)


@dataclass(frozen=True, kw_only=True)
class VocOptions(FileDetectionOptions):
    """A folder of Pascal VOC's layout: Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt."""

    name: Literal["voc"] = "voc"
    root: str | None = None
    train_set: str = "train"
    val_set: str | None = "val"
    test_set: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.root), "root", self.root, "must be the folder with Annotations/: data.root=path/to/VOC2012")
        for part, fraction in (("val", self.val_fraction), ("test", self.test_fraction)):
            rule = f"must be null beside {part}_set"
            check(fraction is None or not getattr(self, f"{part}_set"), f"{part}_fraction", fraction, rule)


OPTIONS: dict[str, type[Any]] = {
    "digits": DigitsOptions,
    "image_folder": ImageFolderOptions,
    "digit_scenes": DigitScenesOptions,
    "coco": CocoOptions,
    "voc": VocOptions,
}
