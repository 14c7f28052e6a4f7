"""The errors of a detector by their kind, and what mending each kind would gain (TIDE, arXiv:2008.08115)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bbframe.tasks.average_precision import average_precision
from bbframe.tasks.detection_matches import MOST, FoundObjects, Matches, TrueObjects, match_images, overlaps

NEAR, FAR = 0.5, 0.1  # the overlap that makes a detection right, and the one below which it shows background
KINDS = ("wrong class", "badly placed", "both", "duplicate", "background", "missed")
OUTCOMES = ("right", *KINDS[:-1], "ignored")  # of a detection
RIGHT, WRONG_CLASS, BADLY_PLACED, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)
MENDABLE = (WRONG_CLASS, BADLY_PLACED)  # that would be right without the error


@dataclass(frozen=True, kw_only=True)
class DetectionErrors:
    """What became of D detections, the rows of `matches`, and of the G true objects that are no crowds.

    `outcome` (D,) are indices into `OUTCOMES`. `shown` (D,) is the object that a detection shows, or would show
    without its error, -1 for none. `place` (G,) is the index of an object within its image, `found` (G,) the score of
    its right detection and `reached` (G,) the best score of one of a wrong class or place; -1 where there is none.
    """

    matches: Matches
    outcome: np.ndarray
    shown: np.ndarray
    place: np.ndarray
    found: np.ndarray
    reached: np.ndarray

    def counts(self, threshold: float = 0.0) -> dict[str, int]:
        """The right detections and the errors of each kind, of detections whose score is at least `threshold`.

        An object is missed that none of them shows, or would show without a wrong class or place.
        """
        seen = np.bincount(self.outcome[self.matches.scores >= threshold], minlength=len(OUTCOMES))
        missed = np.maximum(self.found, self.reached) < max(threshold, 0)
        return {**dict(zip(OUTCOMES[:IGNORED], seen.tolist(), strict=False)), "missed": int(missed.sum())}

    def best_threshold(self) -> float:
        """The score, of 0.05, 0.10 to 0.95, from which on detections have the best F1; 0.5 when none is right."""
        scores, objects = np.arange(1, 20) / 20, len(self.found)
        best, chosen = 0.0, 0.5
        for score in scores.tolist():
            counts = self.counts(score)
            detections = sum(counts.values()) - counts["missed"]
            f1 = 2 * counts["right"] / max(detections + objects, 1)
            if f1 > best:
                best, chosen = f1, score
        return chosen

    def gains(self) -> dict[str, float]:
        """What mending the errors of one kind would add to mAP50: {kind: gain}.

        Detections of a wrong class or place become right, the surest one of each object that was not found, and the
        others go, as do all detections of the other kinds. Missed objects are taken out; a class that has no others
        then counts as 1. The gains do not add up: where one error goes another may matter more. They are NaN where
        there are no objects at all.
        """
        measured = self._mean_precision(self.matches)
        return {kind: self._mean_precision(self._mended(kind)) - measured for kind in KINDS}

    def _mean_precision(self, matches: Matches) -> float:
        classes = np.unique(self.matches.true_labels)
        precision = average_precision(matches)[0, classes]
        return float(np.where(np.isnan(precision), 1, precision).mean()) if len(classes) else math.nan

    def _mended(self, kind: str) -> Matches:
        matches = self.matches
        if kind == "missed":
            kept = np.maximum(self.found, self.reached) >= 0
            return replace(matches, true_image=matches.true_image[kept], true_labels=matches.true_labels[kept])
        wrong = self.outcome == OUTCOMES.index(kind)
        match, labels, ignored = matches.match.copy(), matches.labels.copy(), matches.ignored | wrong
        surest: set[int] = set()
        for row in np.flatnonzero(np.isin(self.outcome, MENDABLE)):  # the surest of an image come first
            shown = self.shown[row]
            if self.found[shown] < 0 and shown not in surest:
                surest.add(shown)
                if wrong[row]:
                    match[0, row], labels[row] = self.place[shown], matches.true_labels[shown]
                    ignored[0, row] = False
        return replace(matches, match=match, labels=labels, ignored=ignored)


def detection_errors(
    images: Sequence[tuple[FoundObjects, TrueObjects]], num_classes: int, *, masks: bool = False, most: int = MOST
) -> DetectionErrors:
    """Say of each detection what became of it, at an overlap of 0.5, by boxes or by `masks`.

    A detection that is not right is, in this order: badly placed, if it overlaps an object of its class by 0.1 to 0.5
    at most; of the wrong class, if it overlaps one of another class by 0.5; a duplicate, if it overlaps a found one of
    its class by 0.5; background, if it overlaps no object by more than 0.1; both badly placed and of the wrong class.
    """
    matches = match_images(images, num_classes, masks=masks, most=most, thresholds=np.array([NEAR]))
    starts = np.searchsorted(matches.image, np.arange(len(images) + 1))
    true_starts = np.searchsorted(matches.true_image, np.arange(len(images) + 1))
    outcome, shown = np.full(len(matches.image), RIGHT), np.full(len(matches.image), -1)
    place = np.zeros(len(matches.true_image), int)
    found, reached = np.full(len(place), -1.0), np.full(len(place), -1.0)
    for number, (seen, truth) in enumerate(images):
        rows = slice(starts[number], starts[number + 1])
        objects = np.flatnonzero(~truth.crowd)
        place[true_starts[number] : true_starts[number + 1]] = objects
        match = matches.match[0, rows]
        match = np.where(matches.ignored[0, rows] | (match < 0), -1, np.searchsorted(objects, match))
        overlap = overlaps(seen, truth, masks)[matches.place[rows]][:, objects]
        same = matches.labels[rows, None] == truth.labels[objects]
        outcome[rows], own = _outcomes(overlap, same, match)
        outcome[rows][matches.ignored[0, rows]] = IGNORED
        shown[rows] = np.where(own < 0, -1, own + true_starts[number])
    shown[outcome == IGNORED] = -1
    for scores, kinds in ((found, (RIGHT,)), (reached, MENDABLE)):
        chosen = np.isin(outcome, kinds)
        np.maximum.at(scores, shown[chosen], matches.scores[chosen])
    return DetectionErrors(matches=matches, outcome=outcome, shown=shown, place=place, found=found, reached=reached)


def _outcomes(overlap: np.ndarray, same: np.ndarray, match: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outcome of each detection, and the object it shows, (N,), -1 for none.

    `overlap` (N, M) are its overlaps, `same` (N, M) says which objects are of its class, and `match` (N,) is the
    object that it has found, -1 for none.
    """
    if not overlap.shape[1]:
        return np.full(len(match), BACKGROUND), match
    own, other = np.where(same, overlap, 0), np.where(same, 0, overlap)
    taken = np.isin(np.arange(overlap.shape[1]), match)
    again = own * taken
    conditions = [
        match >= 0,
        (own.max(1) >= FAR) & (own.max(1) <= NEAR),
        other.max(1) >= NEAR,
        again.max(1) >= NEAR,
        overlap.max(1) <= FAR,
    ]
    shows = [match, own.argmax(1), other.argmax(1), again.argmax(1), np.full(len(match), -1)]
    outcome = np.select(conditions, [RIGHT, BADLY_PLACED, WRONG_CLASS, DUPLICATE, BACKGROUND], BOTH)
    return outcome, np.select(conditions, shows, -1)
