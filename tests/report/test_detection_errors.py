"""The errors of a detector: of each kind one by hand, what mending it gains, and what must add up on random images.

The counts were equal to tidecv 1.0.1's on random images without crowds, and the gains too, which it divides by one
class more where a class has no objects.
"""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.report.detection_errors import KINDS, OUTCOMES, detection_errors
from bbframe.tasks.average_precision import average_precision
from bbframe.tasks.detection_matches import FoundObjects, TrueObjects
from tests.tasks.test_detection_matches import CLASSES, scene

TRUE = TrueObjects(
    boxes=np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 80, 20]]),
    labels=np.array([0, 1, 0, 0]),
    crowd=np.array([False, False, False, True]),
    area=np.array([100.0, 100, 100, 400]),
)


def found(*rows):
    """Detections of (x, width, label, score), each from 0 to 10 in y."""
    boxes = np.array([[x, 0, x + width, 10] for x, width, *_ in rows], float).reshape(-1, 4)
    return FoundObjects(boxes, np.array([row[3] for row in rows]), np.array([row[2] for row in rows], int))


def outcomes(errors):
    return [OUTCOMES[outcome] for outcome in errors.outcome]


@pytest.mark.parametrize(
    ("row", "outcome", "shown"),
    [
        ((0, 9, 0, 0.9), "right", 0),
        ((0, 9, 1, 0.9), "wrong class", 0),
        ((4, 10, 0, 0.9), "badly placed", 0),
        ((4, 10, 1, 0.9), "both", -1),
        ((30, 9, 0, 0.9), "background", -1),
        ((62, 9, 0, 0.9), "ignored", -1),  # in a crowd of its class
        ((62, 9, 1, 0.9), "background", -1),
    ],
)
def test_a_detection_alone_is_one_of_the_kinds(row, outcome, shown):
    errors = detection_errors([(found(row), TRUE)], 2)
    assert outcomes(errors) == [outcome]
    assert errors.shown.tolist() == [shown]
    missed = 2 if outcome in ("right", "wrong class", "badly placed") else 3
    expected = dict.fromkeys(("right", *KINDS), 0) | {"missed": missed}
    assert errors.counts() == expected | ({outcome: 1} if outcome != "ignored" else {})


def test_the_second_detection_of_an_object_is_a_duplicate_whatever_their_order():
    errors = detection_errors([(found((0, 8, 0, 0.5), (0, 10, 0, 0.8)), TRUE)], 2)
    assert list(zip(errors.matches.place.tolist(), outcomes(errors), strict=True)) == [(1, "right"), (0, "duplicate")]
    assert errors.shown.tolist() == [0, 0]


def test_an_image_without_objects_and_one_without_detections():
    empty = TRUE._replace(**{name: getattr(TRUE, name)[:0] for name in ("boxes", "labels", "crowd", "area")})
    errors = detection_errors([(found((0, 9, 0, 0.9)), empty), (found(), TRUE)], 2)
    assert outcomes(errors) == ["background"]
    assert errors.counts()["missed"] == 3


def test_mending_a_kind_gains_what_it_costs():
    """Class 0 has two objects, one found below two errors, and class 1 has one, found as class 0."""
    rows = (0, 10, 0, 0.5), (30, 9, 0, 0.9), (20, 10, 0, 0.8), (44, 10, 0, 0.4)
    errors = detection_errors([(found(*rows), TRUE)], 2)
    assert outcomes(errors) == ["background", "wrong class", "right", "badly placed"]
    half, whole = 51 / 101, 1.0
    measured = half * (1 / 3) / 2
    assert average_precision(errors.matches)[0].mean() == pytest.approx(measured)
    gains = errors.gains()
    assert gains["background"] == pytest.approx(half * (1 / 2) / 2 - measured)
    assert gains["wrong class"] == pytest.approx((half * (1 / 2) + whole) / 2 - measured)
    assert gains["badly placed"] == pytest.approx((half * (1 / 2) + 50 / 101 * (1 / 2)) / 2 - measured)
    assert [gains[kind] for kind in ("both", "duplicate", "missed")] == [0, 0, 0]


def test_the_best_threshold_keeps_what_is_right_and_leaves_out_what_is_not():
    rows = (0, 10, 0, 0.82), (20, 10, 1, 0.63), (30, 9, 0, 0.57), (30, 9, 1, 0.31)
    assert detection_errors([(found(*rows), TRUE)], 2).best_threshold() == 0.6
    assert detection_errors([(found(*rows[2:]), TRUE)], 2).best_threshold() == 0.5  # none is right
    assert detection_errors([(found(), TRUE)], 2).best_threshold() == 0.5


def test_a_class_that_was_missed_counts_as_found_once_that_is_mended():
    errors = detection_errors([(found((0, 10, 0, 0.9), (40, 10, 0, 0.8)), TRUE)], 2)
    assert errors.counts() == dict.fromkeys(KINDS, 0) | {"right": 2, "missed": 1}
    assert errors.gains()["missed"] == pytest.approx(0.5)


def test_of_two_detections_that_could_be_mended_the_surest_is():
    """The surer one of the two is of the wrong class: better placed the other would be its duplicate."""
    errors = detection_errors([(found((0, 10, 1, 0.9), (4, 10, 0, 0.8)), TRUE)], 2)
    gains = errors.gains()
    assert outcomes(errors) == ["wrong class", "badly placed"]
    assert gains["wrong class"] == pytest.approx(51 / 101 / 2)  # class 0: one of two objects is found first
    assert gains["badly placed"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_counts_at_a_score_are_those_of_a_detector_that_says_no_more(seed):
    draw = np.random.default_rng(seed)
    images = [scene(draw, masks=seed == 2) for _ in range(8)]
    errors = detection_errors(images, CLASSES, masks=seed == 2)
    for threshold in (0.0, 0.3, 0.72):
        fewer = []
        for seen, truth in images:
            kept = seen.scores >= threshold
            masks = [mask for mask, keep in zip(seen.masks, kept, strict=True) if keep] if seen.masks else None
            fewer.append((FoundObjects(seen.boxes[kept], seen.scores[kept], seen.labels[kept], masks), truth))
        counts = detection_errors(fewer, CLASSES, masks=seed == 2).counts()
        assert errors.counts(threshold) == counts
        objects = sum(int((~truth.crowd).sum()) for _, truth in images)
        assert 0 < counts["right"] + counts["missed"] <= objects
    gains = errors.gains()
    assert all(gain >= 0 for kind, gain in gains.items() if kind not in ("wrong class", "badly placed", "missed"))
    assert max(gains.values()) > 0.01
