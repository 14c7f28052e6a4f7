"""Calibration of a classifier: is a probability of 0.9 right in 9 of 10 cases? Guo et al., arXiv:1706.04599."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bbframe.schema import Range

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # where a temperature is sought


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """By what a classifier's scores are divided, fitted on a number of validation `images`; None stands for 1."""

    temperature: Annotated[float, Range(COLDEST, HOTTEST)] | None = None
    images: Annotated[int, Range(0, 10**12)] = 0

    def probabilities(self, scores: Tensor) -> Tensor:
        """The calibrated probabilities of scores (B, K), softmax(scores / temperature): (B, K) float32."""
        return (scores.float() / (self.temperature or 1.0)).softmax(dim=1)


def reliability(confidences: NDArray, right: NDArray, bins: int = BINS) -> NDArray:
    """Images, mean confidence and accuracy of equally wide bins of confidence: (N,), (N,) -> (bins, 3).

    A bin holds its upper edge; an empty one has the mean confidence of its centre and an accuracy of NaN.
    """
    place = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, bins) for values in (confidences, right)]
    centres = (np.arange(bins) + 0.5) / bins
    full = counts > 0
    confidence = np.divide(sums[0], counts, out=centres, where=full)
    accuracy = np.divide(sums[1], counts, out=np.full(bins, np.nan), where=full)
    return np.stack([counts, confidence, accuracy], axis=1)


def calibration_error(confidences: NDArray, right: NDArray, bins: int = BINS) -> float:
    """The expected calibration error of probabilities of the predicted class (N,) and whether it was `right` (N,)."""
    counts, confidence, accuracy = reliability(confidences, right, bins).T
    full = counts > 0
    return float((counts[full] * np.abs(confidence - accuracy)[full]).sum() / counts.sum())


def fit_temperature(scores: Tensor, labels: Tensor, steps: int = 50) -> float | None:
    """The temperature that gives scores (N, K), divided by it, the least cross-entropy with labels (N,).

    None where there is none from COLDEST to HOTTEST: without a mistake, for example, colder is always better; and for
    scores that are not finite. The cross-entropy is convex in 1 / temperature; Newton's method finds the root of its
    derivative.
    """
    if not bool(scores.isfinite().all()):
        return None
    true = scores.gather(1, labels[:, None])[:, 0].double().mean().item()
    low, high, sharp = 1 / HOTTEST, 1 / COLDEST, 1.0  # of 1 / temperature
    for _ in range(steps):
        shares = (scores * sharp).softmax(dim=1)
        mean = (shares * scores).sum(dim=1)
        slope = mean.double().mean().item() - true
        bend = ((shares * scores.square()).sum(dim=1) - mean.square()).double().mean().item()
        low, high = (low, sharp) if slope > 0 else (sharp, high)
        following = sharp - slope / bend if bend > 0 else math.inf
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - sharp) <= 1e-6 * sharp:
            break
        sharp = following
    return 1 / sharp if 1.001 / HOTTEST < sharp < 0.999 / COLDEST else None
