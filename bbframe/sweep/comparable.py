"""Which runs may stand in one table: those that were measured on the same images, of one size, by one metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLIT_KEYS = ("split_seed", "scene_seed")  # of data: another value, other images for each part
# options of data that change how a network is trained or how images are loaded, and not which images it is measured on
TRAINING_ALONE = {
    *("batch_size", "num_workers", "timeout", "transforms", "augment", "train_scenes", "cache", "verify"),
    *("mean", "std", "interpolation", "bits"),  # what a checkpoint wants its pixels to be
    *("on_error", "max_errors", "max_pixels", "exclude", "exclude_sha256"),  # test_sha256 says which are left
}


def split_of(run: Mapping[str, Any]) -> Any:
    """The seed of the split that a run was measured on; None for data that have one split."""
    data = (run.get("config") or {}).get("data") or {}
    return next((data[key] for key in SPLIT_KEYS if key in data), None)


def conditions(run: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for two runs to be ranked, by name; sizes and tested images are compared apart."""
    config = run.get("config") or {}
    data = config.get("data") or {}
    trainer = config.get("trainer") or {}
    left_out = {"name", "image_size", *SPLIT_KEYS, *TRAINING_ALONE}
    return {
        "task": run.get("task"),
        "data": run.get("data"),
        "metric": run.get("metric"),
        "mode": run.get("mode"),
        "test_part": run.get("test_part"),
        "debug": config.get("debug"),
        "validation images": (run.get("exclude") or {}).get("validation"),
        "trainer.limit_val_batches": trainer.get("limit_val_batches"),
        **{f"data.{key}": value for key, value in data.items() if key not in left_out},
    }


def size_before_rounding(run: Mapping[str, Any]) -> list[range]:
    """What each side of the images, in pixels, may have been before it was rounded up to the backbone's stride.

    Without data.image_size, a small image is enlarged to whole maps: 32 is 32 for a stride of 32 and 42 for one of 14,
    and both count as one size. A size that was asked for is never rounded, and is one with its own number alone.
    """
    stride = 1 if size_asked(run) else max((run.get("maps") or {}).values(), default=1)
    return [range(side - stride + 1, side + 1) for side in run.get("image_size") or []]


def size_asked(run: Mapping[str, Any]) -> bool:
    """Whether a run's configuration says how large its images are."""
    return ((run.get("config") or {}).get("data") or {}).get("image_size") is not None


def _same_size(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs saw images of one size; a rounded size and one that was asked for must be equal."""
    return size_asked(one) == size_asked(other) or one.get("image_size") == other.get("image_size")


@dataclass
class ComparableRuns:
    """Runs that may be ranked, and why they are not ranked with those of the first table (empty for the first)."""

    runs: list[dict[str, Any]]
    conditions: dict[str, Any]
    sizes: list[range]  # what each side may have been before it was rounded, by all runs
    images: dict[Any, str] = field(default_factory=dict)  # the hash of the tested images of each split
    reason: str = ""

    def takes(self, run: Mapping[str, Any]) -> bool:
        """Whether a run was measured as these runs were."""
        tested, sizes = run.get("test_sha256"), size_before_rounding(run)
        return (
            self.conditions == conditions(run)
            and len(self.sizes) == len(sizes)
            and all(map(_shared, self.sizes, sizes))
            and all(_same_size(run, other) for other in self.runs)
            and (tested is None or self.images.get(split_of(run), tested) == tested)
        )

    def add(self, run: dict[str, Any]) -> None:
        """Take in a run that was measured as these runs were."""
        self.runs.append(run)
        self.sizes = [*map(_shared, self.sizes, size_before_rounding(run))]
        if run.get("test_sha256") is not None:
            self.images[split_of(run)] = run["test_sha256"]


def _shared(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def comparable_groups(runs: Sequence[dict[str, Any]]) -> list[ComparableRuns]:
    """Divide runs so that all of a group have the same conditions and sizes and, for each split, tested images."""
    groups: list[ComparableRuns] = []
    for run in runs:
        group = next((group for group in groups if group.takes(run)), None)
        if group is None:
            reason = difference(groups[0].runs[0], run) if groups else ""
            groups.append(group := ComparableRuns([], conditions(run), size_before_rounding(run), reason=reason))
        group.add(run)
    return groups


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why a run cannot be ranked with another one; one line that gives the value of `other` first."""
    differ, first, second = [], conditions(one), conditions(other)
    for run, found in ((one, first), (other, second)):
        found["image_size"] = run.get("image_size")
    shared = all(map(_shared, size_before_rounding(one), size_before_rounding(other)))
    if shared and _same_size(one, other):
        second["image_size"] = first["image_size"]
    for name in {**first, **second}:
        if first.get(name) != second.get(name):
            differ.append(f"{name} is {_written(second.get(name))}, not {_written(first.get(name))}")
    return "; ".join(differ) or "other images were tested, although all options are the same (test_sha256 differs)"


def _written(value: Any) -> str:
    return "null" if value is None else str(value)
