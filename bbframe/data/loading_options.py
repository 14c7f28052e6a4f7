"""The options that data sets of every task share; light, so that errors come at once."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from bbframe.registry import PartOptions, parse_part
from bbframe.schema import demand

Transform = Annotated[PartOptions, partial(parse_part, "transform")]


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    """The changes of a training image that every task knows."""

    flip: bool = False
    vertical_flip: bool = False
    color_jitter: tuple[float, float, float, float] | None = None  # brightness, contrast, saturation, hue

    def __post_init__(self) -> None:
        strengths = self.color_jitter or (0.0,)
        good = min(strengths) >= 0 and strengths[-1] <= 0.5
        demand(good, "data: augment.color_jitter", strengths, "must be 0 or more, and the last, the hue, 0..0.5")


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """What every data set takes; `transforms` change training images after the augmentations of `augment`."""

    task: ClassVar[str]

    name: str
    batch_size: int = 64
    num_workers: int | None = None  # processes that load images; 0: the training process; null: a core each, up to 8
    timeout: int = 300  # seconds that a batch may take to come from a worker
    mean: tuple[float, ...] | None = None  # null: the checkpoint's, as for the two that follow
    std: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        demand(self.batch_size >= 1, "data: batch_size", self.batch_size, "must be 1 or more")
        demand((self.num_workers or 0) >= 0, "data: num_workers", self.num_workers, "must be 0 or more")
        demand(self.timeout >= 1, "data: timeout", self.timeout, "must be 1 second or more")
        for name, value in (("mean", self.mean), ("std", self.std)):
            demand(value is None or len(value) in (1, 3), f"data: {name}", value, "must be 1 or 3 numbers")
        demand(self.std is None or min(self.std) > 0, "data: std", self.std, "must be above 0")

    def sides(self, preferred: tuple[int, int], stride: int) -> tuple[int, int]:
        """The (height, width) at which costs are counted; a classifier sees no other.

        `preferred` is the checkpoint's size; `stride` is the stride of the smallest map.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What every data set of image files takes: how to set parts aside, and what to do about broken files."""

    val_fraction: float | None = None  # of each class, where there is no val folder; null: 0.15
    test_fraction: float | None = None  # likewise; null: 0.15 without a train folder, else none
    split_seed: int = 0
    verify: bool = True  # read the header and the end of every file before training
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: int = 100  # unreadable files that "skip" puts up with
    max_pixels: int = 178_956_970  # width x height; a file that says more is refused unread
    bits: int | None = None  # significant bits of 16-bit images; null: by the file, or by the largest value of all

    def __post_init__(self) -> None:
        val, test = self.val_fraction, self.test_fraction
        demand(val is None or 0 < val < 1, "data: val_fraction", val, "must be above 0 and below 1")
        demand(0 <= (test or 0) < 1, "data: test_fraction", test, "must be 0 or more and below 1")
        taken = sum(self.fractions(given=(), test=0.15).values())
        demand(taken < 1, "data: val_fraction", val, f"and test_fraction={test} leave nothing for training")
        demand(self.max_errors >= 0, "data: max_errors", self.max_errors, "must be 0 or more")
        demand(self.max_pixels >= 1, "data: max_pixels", self.max_pixels, "must be 1 or more")
        demand(self.bits is None or 1 <= self.bits <= 16, "data: bits", self.bits, "must be within 1..16, or null")

    @property
    def tolerated_errors(self) -> int:
        """How many faulty files are put up with."""
        return self.max_errors if self.on_error == "skip" else 0

    def fractions(self, given: Container[str], test: float) -> dict[str, float]:
        """The fraction of train for each part that is not `given`; `test` is the default of `test_fraction`."""
        wanted = {"val": self.val_fraction or 0.15, "test": test if self.test_fraction is None else self.test_fraction}
        return {part: fraction for part, fraction in wanted.items() if fraction and part not in given}
