"""The options of data sets for detection; light, so that errors come at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from bbframe.data.loading_options import FileOptions, LoadingOptions, MirrorOptions, Workers
from bbframe.schema import Length, Name, Pixels, Range, Seed, Sides, demand

Scale = Annotated[float, Range(0, 16, low_open=True)]
Scenes = Annotated[int, Range(1, 100_000)]
Digits = Annotated[int, Range(1, 100)]
Side = Annotated[int, Range(8, 1024, "pixels")]  # a scan has 8


@dataclass(frozen=True, kw_only=True)
class DetectionAugmentOptions(MirrorOptions):
    """What happens at random to a training image and its boxes, in the order of the YAML files.

    `scale_jitter` and `crop_size` make arXiv:2012.07177's large-scale jitter; `iou_crop` is arXiv:1512.02325's.
    """

    iou_crop: bool = False  # a random part of the image in which some boxes keep much of their area
    min_sizes: Annotated[tuple[Pixels, ...], Length(1, 100)] | None = None  # one is drawn instead of data.min_size
    scale_jitter: tuple[Scale, Scale] | None = None  # the image fits into crop_size, times a factor from this range
    crop_size: tuple[Pixels, Pixels] | None = (
        None  # (height, width) of the largest random part that is kept after resizing
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes, crop, jitter = self.min_sizes, self.crop_size, self.scale_jitter
        if jitter is not None:
            demand(jitter[0] <= jitter[1], "data: augment.scale_jitter", jitter, "must rise above 0, say [0.1, 2]")
            demand(crop is not None, "data: augment.scale_jitter", jitter, "needs augment.crop_size, to fit into")
            rule = "must be null beside scale_jitter: both say how large"
            demand(sizes is None, "data: augment.min_sizes", sizes, rule)


@dataclass(frozen=True, kw_only=True)
class DetectionDataOptions(LoadingOptions):
    """What every data set of images with boxes takes. Images keep their aspect ratio."""

    task = "detection"

    batch_size: Annotated[int, Range(1, 4096, "images")] | Literal["auto"] = 8
    min_size: Pixels | None = None  # the shorter side once resized; null: as it is
    max_size: Pixels | None = None  # unless the longer one would then exceed this
    augment: DetectionAugmentOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.min_size, self.max_size
        drawn = (self.augment and self.augment.min_sizes) or ()
        demand(most is None or most >= max(least or 1, *drawn, 1), "data: max_size", most, "must be at least min_size")

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        """The size of a usual image once resized; without better knowledge 4:3, as most photographs."""
        longest = math.inf if self.max_size is None else self.max_size
        height = int(min(self.min_size or 480, longest))
        return height, int(min(round(height * 4 / 3), longest))


@dataclass(frozen=True, kw_only=True)
class DigitScenesOptions(DetectionDataOptions):
    """Scenes of scikit-learn's digits at random places: the same whatever the run's seed."""

    name: Literal["digit_scenes"] = "digit_scenes"
    num_workers: Workers | None = 0  # small pictures in memory
    train_scenes: Scenes = 600
    val_scenes: Scenes = 128
    test_scenes: Scenes = 256
    image_size: Sides = (96, 96)  # (height, width) of a scene
    num_digits: tuple[Digits, Digits] = (1, 5)  # in a scene: the fewest and the most, of those that find a place
    digit_size: tuple[Side, Side] = (22, 48)  # the side of a scan once resized: the smallest and the largest
    scene_seed: Seed = 0
    cache: Name | None = None  # a folder in which the scenes are kept for the next run
    augment: DetectionAugmentOptions | None = field(default_factory=DetectionAugmentOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        fewest, most = self.num_digits
        demand(fewest <= most, "data: num_digits", self.num_digits, "must rise from 1 or more")
        low, high = self.digit_size
        demand(low <= high, "data: digit_size", self.digit_size, "must rise from 8 pixels or more, the side of a scan")
        rule = f"must be at least the largest digit, digit_size={self.digit_size}"
        demand(min(self.canvas) >= high, "data: image_size", self.image_size, rule)
        pixels = math.prod(self.canvas) * (self.train_scenes + self.val_scenes + self.test_scenes)
        rule = "makes scenes of more than 2**30 pixels together, which are kept in memory"
        demand(pixels <= 2**30, "data: image_size", self.image_size, rule)

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        return self.canvas

    @property
    def canvas(self) -> tuple[int, int]:
        """The (height, width) of a scene."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


@dataclass(frozen=True, kw_only=True)
class FileDetectionOptions(FileOptions, DetectionDataOptions):
    """What every data set of image files with boxes takes: sizes that are usual for photographs, and mirroring.

    The options `<part>_<given_by>` name files that make a part; without them train gives a fraction.
    """

    given_by: ClassVar[str]

    min_size: Pixels | None = 800
    max_size: Pixels | None = 1333
    exif: Literal["apply", "ignore"] | None = None  # turn images as their EXIF says; null: as width and height say
    augment: DetectionAugmentOptions | None = field(default_factory=lambda: DetectionAugmentOptions(flip=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        for part, fraction in (("val", self.val_fraction), ("test", self.test_fraction)):
            key = f"{part}_{self.given_by}"
            good = fraction is None or not getattr(self, key)
            demand(good, f"data: {part}_fraction", fraction, f"must be null beside {key}")


@dataclass(frozen=True, kw_only=True)
class CocoOptions(FileDetectionOptions):
    """Image folders, each with a JSON file of COCO's format."""

    given_by = "annotations"

    name: Literal["coco"] = "coco"
    train_images: Name | None = None
    train_annotations: Name | None = None
    val_images: Name | None = None
    val_annotations: Name | None = None
    test_images: Name | None = None
    test_annotations: Name | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in ("train", "val", "test"):
            for kind, other, what in (("annotations", "images", "JSON file"), ("images", "annotations", "folder")):
                key, given = f"{part}_{kind}", getattr(self, f"{part}_{other}")
                if part == "train" or given or getattr(self, key):
                    self.demand_place((key,), f"must be the {what} of your {part} images: data.{key}=path/to/it")


@dataclass(frozen=True, kw_only=True)
class VocOptions(FileDetectionOptions):
    """A folder of Pascal VOC's layout: Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt."""

    given_by = "set"

    name: Literal["voc"] = "voc"
    root: Name | None = None
    train_set: Name = "train"
    val_set: Name | None = "val"
    test_set: Name | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand_place(("root",), "must be the folder with Annotations/: data.root=path/to/VOC2012")
