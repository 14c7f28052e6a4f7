"""Whether a setting can be told apart from the first of its table: by paired differences, not by overlapping bars."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbframe.sweep.comparable import split_of
from bbframe.sweep.setting_results import Setting
from bbframe.sweep.statistics import MeanInterval, independent_means, t_interval
from bbframe.tasks import bootstrap

RESAMPLES = 10_000
BY_IMAGES = "test images of one run each"  # what a verdict rests on that is not about seeds or splits
PART_NAMES = {"val": "validation", "test": "test"}
PER_IMAGE = {"accuracy": lambda row: float(row["class"] == row["predicted"]), "loss": lambda row: float(row["loss"])}


class Verdict(NamedTuple):
    """How a setting compares to the first: `word` is first, tied, worse, better or unknown.

    `difference` is the setting's value less the first one's, in the metric's own unit; `by` says what was compared.
    """

    word: str
    by: str = ""
    difference: MeanInterval | None = None


def compare_to_first(first: Setting, other: Setting, metric: str, mode: str, part: str = "val") -> Verdict:
    """Compare on the part that orders the table, paired over the seeds and splits that both have, if two or more.

    With fewer, two runs are compared on their test images, paired over the images: one seed is enough for that, and it
    says nothing about another seed. Such a verdict is about the test, which the order of the rows is not.
    """
    if other is first:
        return Verdict("first")
    one, two = first.values(part, metric), other.values(part, metric)
    common = {unit: two[unit] - one[unit] for unit in one if unit in two}
    means = independent_means(common) if common else []
    if len(set(means)) > 1:  # equal differences have no spread, which says nothing of their error
        kind = "seeds" if len({seed for seed, _ in common}) > 1 else "splits"
        return _verdict(t_interval(means), mode, f"{PART_NAMES[part]}, {len(means)} common {kind}")
    pairs = [(a, b) for a in first.runs for b in other.runs if _same_images(a, b)]
    if not pairs:
        few = "no spread over the common seeds" if len(means) > 1 else "fewer than two common seeds"
        return Verdict("unknown", f"{few}, and no run of each tested the same images")
    a, b = min(pairs, key=lambda pair: pair[0].get("seed") != pair[1].get("seed"))
    try:
        return _verdict(test_difference(a, b, metric), mode, BY_IMAGES)
    except ValueError as error:
        return Verdict("unknown", f"fewer than two common seeds, and {error}")


def _verdict(difference: MeanInterval, mode: str, by: str) -> Verdict:
    if difference.holds_zero:
        return Verdict("tied", by, difference)
    higher = difference.mean > 0
    return Verdict("better" if higher == (mode == "max") else "worse", by, difference)


def _same_images(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = one.get("test_sha256") is not None and one["test_sha256"] == other.get("test_sha256")
    return same and split_of(one) == split_of(other)


def test_difference(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> MeanInterval:
    """The bootstrap interval, paired over the images, of the test metric of `other` less the value of `one`.

    Raises ValueError for a metric that does not follow from predictions.csv, and where a run has none that fits.
    """
    if metric not in (*PER_IMAGE, "f1"):
        raise ValueError(f"{metric} does not follow from predictions.csv")
    first, second = (predictions(run["path"]) for run in (one, other))
    if [row["image"] for row in first] != [row["image"] for row in second]:
        raise ValueError("the two predictions.csv name other images")
    pairs = _class_pairs(first, second) if metric == "f1" else _image_pairs(first, second, metric)
    everything = np.ones((1, len(pairs)), np.int32)
    found = _pair_statistics(metric)(pairs, everything)
    for run, name in ((one, "one"), (other, "other")):
        stated, value = (run.get("test") or {}).get(metric), float(found[name][0])
        if stated is None or not math.isclose(stated, value, rel_tol=1e-3, abs_tol=1e-5):
            raise ValueError(f"{run['path']}: test {metric} is {stated}, but predictions.csv gives {value:.6g}")
    biased = ["difference"] if metric == "f1" else []  # of resamples, in which a rare class may be missing
    ends = bootstrap.intervals(pairs, _pair_statistics(metric), RESAMPLES, centred=biased)
    return MeanInterval(float(found["difference"][0]), *ends["difference"])


def _image_pairs(first: Sequence[dict[str, str]], second: Sequence[dict[str, str]], metric: str) -> NDArray:
    """The value of each image in both runs: (N, 2)."""
    value = PER_IMAGE[metric]
    return np.array([[value(a), value(b)] for a, b in zip(first, second, strict=True)])


def _class_pairs(first: Sequence[dict[str, str]], second: Sequence[dict[str, str]]) -> NDArray:
    """The true class of each image, and what both runs took it for: (N, 3)."""
    rows = [[a["class"], a["predicted"], b["predicted"]] for a, b in zip(first, second, strict=True)]
    numbers = {name: number for number, name in enumerate(sorted({name for row in rows for name in row}))}
    return np.array([[numbers[name] for name in row] for row in rows])


def _pair_statistics(metric: str) -> bootstrap.Statistics:
    """The metric of both runs and their difference, from distinct rows and how often each was drawn."""

    def values(rows: NDArray, drawn: NDArray) -> dict[str, NDArray]:
        if metric == "f1":
            one, other = (bootstrap.macro_f1(rows[:, 0], rows[:, column], drawn) for column in (1, 2))
        else:
            one, other = (bootstrap.means(rows[:, column], drawn) for column in (0, 1))
        return {"one": one, "other": other, "difference": other - one}

    return values


def predictions(folder: str | Path) -> list[dict[str, str]]:
    """The rows of a run's predictions.csv; raises ValueError without one, or for one that is broken."""
    file = Path(folder) / "predictions.csv"
    try:
        with open(file, newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
        if not rows:
            raise ValueError(f"{file} is empty")
        for row in rows:
            if None in (row.get("image"), row.get("class"), row.get("predicted")):
                raise ValueError(f"{file} lacks a column or a cell")
            float(row["loss"] or "")
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {type(error).__name__}") from error
    return rows
