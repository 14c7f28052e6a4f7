"""Which stages of a backbone to give to a head: greedily, as long as a stage adds more than chance does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbframe.extraction.class_scores import checked_labels, correct_rows, signed_targets
from bbframe.extraction.ridge import ridge_at_penalty, ridge_leave_one_out
from bbframe.extraction.standardised_features import KEPT, StandardisedFeatures
from bbframe.rank.resampling import Resampling

SCREENED = 2


class StageStep(NamedTuple):
    """A stage that joined, with the score of all stages so far, and the gain over those before with its interval."""

    stage: str
    kind: str
    score: float
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


class StageChoice(NamedTuple):
    """The chosen `stages` in network order, the `steps` in the order of joining, and `correct` (n,) of all of them.

    `refused` is the best of the stages that did not join, or None if none was left.
    """

    stages: list[str]
    steps: list[StageStep]
    correct: NDArray[np.float64]
    refused: StageStep | None


Candidate = tuple[str, str]  # stage and kind
Read = Callable[[str, str], StandardisedFeatures]


def choose_stages(
    candidates: Sequence[Candidate],
    features: Callable[[str, str], NDArray | StandardisedFeatures],
    y: NDArray,
    K: int,
    resampling: Resampling,
    *,
    first: str | None = None,
    most: int | None = None,
) -> StageChoice:
    """Begin with the best stage, or with `first`; the one that adds most joins while its gain's interval is above 0.

    `candidates` are (stage, kind) in network order, and `features` gives the array (n, C) of one. The score is the
    share of rows that leave-one-out ridge on the standardised features of all stages, side by side, gets right. With
    few rows, the stages that may join are compared at the penalty of the step before, and the best SCREENED of them
    with their own. A stage joins with one kind. Of equal stages the later one is taken, because it has fewer
    positions. At most `most` stages join. Raises ValueError without a candidate, and for a `first` that is none.
    """
    if not candidates:
        raise ValueError("choose_stages needs one stage or more to choose from")

    def read(stage: str, kind: str) -> StandardisedFeatures:
        return StandardisedFeatures.of(features(stage, kind))

    if len(y) <= KEPT:
        read = functools.cache(read)
    y = checked_labels(y, K, read(*candidates[0]).rows, "choose_stages")
    chosen: list[Candidate] = []
    steps: list[StageStep] = []
    correct, penalty, refused, left = np.zeros(len(y)), 0.0, None, list(candidates)
    if first is not None and first not in dict(candidates):
        raise ValueError(f"choose_stages: no stage {first!r} to begin with; there are {list(dict(candidates))}")
    while left and (most is None or len(steps) < most):
        tried = left if chosen or first is None else [each for each in left if each[0] == first]
        if chosen and len(y) <= KEPT and len(left) > SCREENED:
            tried = _screened(chosen, left, read, y, K, penalty)
        found = {candidate: _correct([*chosen, candidate], read, y, K) for candidate in tried}
        best = max(reversed(tried), key=lambda candidate: found[candidate][0].sum())
        rows, best_penalty = found[best]
        step = StageStep(*best, float(rows.mean()))
        if chosen:
            low, high = resampling.difference(correct, rows)
            step = step._replace(gain=float((rows - correct).mean()), gain_low=low, gain_high=high)
            if low <= 0:
                refused = step
                break
        chosen.append(best)
        steps.append(step)
        correct, penalty = rows, best_penalty
        left = [candidate for candidate in left if candidate[0] != best[0]]
    names = dict.fromkeys(stage for stage, _ in candidates)
    return StageChoice([name for name in names if name in dict(chosen)], steps, correct, refused)


def _correct(stages: Sequence[Candidate], read: Read, y: NDArray, K: int) -> tuple[NDArray[np.float64], float]:
    """Which rows are right (n,) with the stages side by side, and the penalty of the ridge."""
    sets = [read(*stage) for stage in stages]
    found = ridge_leave_one_out(sets[0] if len(sets) == 1 else StandardisedFeatures.joined(sets), signed_targets(y, K))
    return correct_rows(found.predictions, y), found.penalty


def _screened(
    chosen: Sequence[Candidate], left: Sequence[Candidate], read: Read, y: NDArray, K: int, penalty: float
) -> list[Candidate]:
    """The candidates that add most at one penalty, in network order; it grows with the number of features."""
    targets, before = signed_targets(y, K), [read(*stage) for stage in chosen]
    channels, product = sum(each.channels for each in before), np.zeros((len(y), len(y)))
    for each in before:
        product += each.outer_product
    scores = []
    for candidate in left:
        added = read(*candidate)
        grown = penalty * (channels + added.channels) / channels
        predictions = ridge_at_penalty(product + added.outer_product, targets, grown)
        scores.append(correct_rows(predictions, y).sum())
    order = sorted(range(len(left)), key=lambda place: (scores[place], place))[-SCREENED:]
    return [left[place] for place in sorted(order)]
