"""The options that data sets of every task share; light, so that errors come at once."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from bbframe.registry import PartOptions, parse_part
from bbframe.schema import Fraction, Length, Name, Options, Range, Rate, Seed, Share, Text, demand

Workers = Annotated[int, Range(0, 256, "processes")]
ByteSize = Annotated[
    str, Text("a size in MB, GB or TB, such as 50GB", r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})? ?[MGT]B")
]
Strength = Annotated[float, Range(0, 10)]
Transform = Annotated[PartOptions, partial(parse_part, "transform")]


@dataclass(frozen=True, kw_only=True)
class MirrorOptions(Options):
    """The changes of a training image that every task knows."""

    prefix: ClassVar[str] = "data: augment."

    flip: bool = False
    vertical_flip: bool = False
    # brightness, contrast, saturation, hue
    color_jitter: tuple[Strength, Strength, Strength, Annotated[float, Range(0, 0.5)]] | None = None

    def check_channels(self, num_channels: int) -> None:
        """Raise ValueError for a change of colours where there are none."""
        if num_channels == 1 and any((self.color_jitter or ())[2:]):
            raise ValueError(
                f"data: augment.color_jitter={self.color_jitter} changes saturation or hue, which greyscale images "
                "(num_channels=1) do not have; set its last two values to 0"
            )


@dataclass(frozen=True, kw_only=True)
class LoadingOptions(Options):
    """What every data set takes; `transforms` change training images after the augmentations of `augment`."""

    task: ClassVar[str]
    prefix: ClassVar[str] = "data: "

    name: Name
    batch_size: Annotated[int, Range(1, 65_536, "images")] | Literal["auto"] = 64
    num_workers: Workers | None = None  # that load images; 0: the training process; null: a core each, up to 8
    timeout: Annotated[int, Range(1, 86_400, "seconds")] = 300  # that a batch may take to come from a worker
    mean: tuple[Share, ...] | None = None  # null: the checkpoint's, as for the two that follow
    std: tuple[Annotated[float, Range(0, 1, low_open=True)], ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    transforms: Annotated[tuple[Transform, ...], Length(0, 100)] = ()
    exclude: Name | None = None  # a file of images to leave out or to relabel, as `bbframe data --out` writes it
    exclude_sha256: Annotated[str, Text("64 hexadecimal digits", "[0-9a-fA-F]{64}")] | None = None  # null: any file
    shards: Name | None = None  # a folder or URL of shards, which then holds the images
    shard_window: Annotated[int, Range(1, 100_000, "shards")] | None = None  # mixed at a time; null: all, of a URL 8
    shard_cache: Name | None = None  # the folder that keeps shards of a URL; null: ~/.cache/bbframe/shards
    shard_cache_size: ByteSize = "50GB"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("mean", self.mean), ("std", self.std)):
            demand(value is None or len(value) in (1, 3), f"data: {name}", value, "must be 1 or 3 numbers")

    def demand_place(self, names: tuple[str, ...], rule: str) -> None:
        """Raise ValueError unless all options in `names` say where the images are, or `shards` alone does."""
        for name in names:
            value = getattr(self, name)
            if self.shards is None:
                demand(bool(value), f"data: {name}", value, rule)
            demand(not value or self.shards is None, f"data: {name}", value, "must be null beside data.shards")

    def check_channels(self, num_channels: int) -> None:
        """Raise ValueError for other than 1 or 3 channels, and for augmentations that they cannot have."""
        if num_channels not in (1, 3):
            raise ValueError(
                f"data: images have 1 or 3 channels, but the backbone takes num_channels={num_channels}; "
                "set backbone.num_channels to 1 or 3"
            )
        if augment := getattr(self, "augment", None):
            augment.check_channels(num_channels)

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        """The (height, width) at which costs are counted; a classifier sees no other.

        `preferred` is the checkpoint's size; `stride` is the stride of the smallest map.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FileOptions(Options):
    """What every data set of image files takes: how to set parts aside, and what to do about broken files."""

    prefix: ClassVar[str] = "data: "

    val_fraction: Fraction | None = None  # of each class, where there is no val folder; null: 0.15
    test_fraction: Rate | None = None  # likewise; null: 0.15 without a train folder, else none
    split_seed: Seed = 0
    verify: bool = True  # read the header and the end of every file before training
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: Annotated[int, Range(0, 10**9)] = 100  # unreadable files that "skip" puts up with
    max_pixels: Annotated[int, Range(1, 10**9)] = (
        178_956_970  # width x height; a file that says more is refused unread
    )
    bits: Annotated[int, Range(1, 16)] | None = (
        None  # significant bits of 16-bit images; null: by file, or by the largest value
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        val, test = self.val_fraction, self.test_fraction
        taken = sum(self.fractions(given=(), test=0.15).values())
        demand(taken < 1, "data: val_fraction", val, f"and test_fraction={test} leave nothing for training")

    @property
    def tolerated_errors(self) -> int:
        """How many faulty files are put up with."""
        return self.max_errors if self.on_error == "skip" else 0

    def fractions(self, given: Container[str], test: float) -> dict[str, float]:
        """The fraction of train for each part that is not `given`; `test` is the default of `test_fraction`."""
        wanted = {"val": self.val_fraction or 0.15, "test": test if self.test_fraction is None else self.test_fraction}
        return {part: fraction for part, fraction in wanted.items() if fraction and part not in given}
