"""Box scores: what features say about the sides of boxes, overall and within a size bucket."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.rank.box_scores import box_scores, box_targets, size_buckets


def boxes_and_features(noise=0.05, rows=200, seed=0):
    random = np.random.default_rng(seed)
    sides = np.exp(random.uniform(np.log(8), np.log(200), (rows, 2)))
    corner = random.uniform(0, 300, (rows, 2))
    X = random.standard_normal((rows, 6))
    X[:, :2] = np.log(sides) + noise * random.standard_normal((rows, 2))
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32), X.astype(np.float32)


def test_r2_is_high_for_features_that_know_the_sides_and_not_above_0_for_noise():
    boxes, X = boxes_and_features()
    known = box_scores(X, boxes)
    assert known.r2 > 0.95
    assert all(known.by_size[name] > 0.8 for name in ("small", "medium", "large"))
    noise = box_scores(X[:, 2:], boxes)
    assert noise.r2 < 0.05
    assert noise.r2 == pytest.approx(1 - noise.errors.sum() / noise.spread.sum())


def test_a_feature_that_only_knows_the_bucket_is_good_overall_and_not_within():
    boxes, _ = boxes_and_features()
    scores = box_scores(np.eye(3)[size_buckets(boxes)], boxes)
    assert scores.r2 > 0.3
    assert all(value < 0.05 for value in scores.by_size.values())


def test_both_sides_count_alike_and_a_constant_one_not_at_all():
    boxes, X = boxes_and_features()
    boxes[:, 3] = boxes[:, 1] + 64
    boxes = np.round(boxes)
    assert box_scores(X[:, :1], boxes).r2 > 0.95


def test_buckets_are_cocos():
    sides = np.array([31.9, 32, 95.9, 96])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert size_buckets(boxes).tolist() == [0, 1, 1, 2]


def test_targets_do_not_depend_on_the_place():
    boxes, _ = boxes_and_features()
    moved = boxes.astype(float) + np.array([50, 20, 50, 20])
    np.testing.assert_allclose(box_targets(moved), box_targets(boxes.astype(float)))


def test_a_bucket_with_few_boxes_says_nothing():
    boxes, X = boxes_and_features(rows=12)
    assert len(box_scores(X, boxes).by_size) < 3


def test_what_is_wrong_is_said_in_one_line():
    boxes, X = boxes_and_features()
    with pytest.raises(ValueError, match=r"^box scores: all boxes have the same size.*$"):
        box_scores(X, np.tile(boxes[:1], (200, 1)))
    with pytest.raises(ValueError, match=r"^box scores need three boxes or more, not 2$"):
        box_scores(X[:2], boxes[:2])
    boxes[7, 2] = boxes[7, 0]
    with pytest.raises(ValueError, match=r"^box 7 is empty, .* leave such boxes out$"):
        box_scores(X, boxes)
