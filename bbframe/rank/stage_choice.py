"""Which stages of a backbone to give to a head: greedily, as long as a stage adds more than chance does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbframe.rank.class_scores import correct_rows
from bbframe.rank.resampling import Resampling
from bbframe.rank.ridge import ridge_class_scores
from bbframe.rank.standardised_features import StandardisedFeatures


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


def choose_stages(
    candidates: Sequence[tuple[str, str]],
    features: Callable[[str, str], NDArray],
    y: NDArray,
    K: int,
    resampling: Resampling,
    *,
    most: int | None = None,
) -> StageChoice:
    """Begin with the best stage; the stage that adds most joins while the interval of its gain lies above 0.

    `candidates` are (stage, kind) in network order, and `features` gives the array (n, C) of one. The score is the
    share of rows that leave-one-out ridge on the standardised features of all stages, side by side, gets right. A
    stage joins with one kind. Of equal stages the later one is taken, because it has fewer positions. At most
    `most` stages join. Raises ValueError without a candidate.
    """
    if not candidates:
        raise ValueError("choose_stages needs one stage or more to choose from")
    chosen: list[tuple[str, str]] = []
    steps: list[StageStep] = []
    correct, refused = np.zeros(len(y)), None
    left = list(candidates)
    while left and (most is None or len(steps) < most):
        best, found = left[0], np.full(len(y), -1.0)
        for candidate in left:
            rows = _correct([*chosen, candidate], features, y, K)
            if rows.sum() >= found.sum():
                best, found = candidate, rows
        step = StageStep(*best, float(found.mean()))
        if chosen:
            low, high = resampling.difference(correct, found)
            step = step._replace(gain=float((found - correct).mean()), gain_low=low, gain_high=high)
            if low <= 0:
                refused = step
                break
        chosen.append(best)
        steps.append(step)
        correct = found
        left = [candidate for candidate in left if candidate[0] != best[0]]
    names = dict.fromkeys(stage for stage, _ in candidates)
    return StageChoice([name for name in names if name in dict(chosen)], steps, correct, refused)


def _correct(
    stages: Sequence[tuple[str, str]], features: Callable[[str, str], NDArray], y: NDArray, K: int
) -> NDArray[np.float64]:
    arrays = [features(stage, kind) for stage, kind in stages]
    return correct_rows(ridge_class_scores(StandardisedFeatures(*arrays), y, K), y)
