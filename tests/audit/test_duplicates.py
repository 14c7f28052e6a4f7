"""Copies by digest, near copies by pixels and by features."""

from __future__ import annotations

import numpy as np

from bbframe.audit.duplicates import equal_groups, near_by_features, near_by_hash


def test_equal_digests_are_grouped_and_unreadable_images_are_equal_to_none():
    assert equal_groups([b"a", None, b"b", b"a", None, b"c", b"a", b"b"]) == [[0, 3, 6], [2, 7]]


def test_equal_hashes_of_different_pictures_are_no_copies():
    small = np.zeros((4, 16, 16, 3), np.uint8)
    small[1] += 200  # a blank image of another colour has the same hash
    small[2:] = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    small[3, 0, 0] ^= 3
    hashes = np.array([0, 0, 99, 99], np.uint64)
    pairs = near_by_hash(hashes, small)
    assert [(pair.one, pair.other) for pair in pairs] == [(2, 3)]
    assert 0.99 < pairs[0].score < 1


def test_features_in_one_direction_are_near_copies():
    random = np.random.default_rng(0)
    features = random.normal(size=(50, 16)).astype(np.float32)
    features[40] = features[3] + 0.01 * random.normal(size=16)
    pairs = near_by_features(features)
    assert [(pair.one, pair.other) for pair in pairs] == [(3, 40)]
    assert near_by_features(features[:2]) == []
