"""Likely wrong labels: found among clusters, and both halves of the score against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from bbframe.audit.label_disagreement import label_doubts
from bbframe.audit.whitening import Whitening


def clusters(each=40, classes=4, size=12, seed=0, apart=3.0):
    random = np.random.default_rng(seed)
    centres = apart * random.normal(size=(classes, size))
    labels = np.repeat(np.arange(classes), each)
    return (centres[labels] + random.normal(size=(len(labels), size))).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_changed_labels_come_first_and_their_class_is_suggested(seed):
    features, labels = clusters(seed=seed)
    random = np.random.default_rng(seed)
    wrong = random.choice(len(labels), 8, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + random.integers(1, 4, 8)) % 4
    doubts = label_doubts(features, given, 4)
    assert set(doubts.ranking()[:8].tolist()) == set(wrong.tolist())
    assert doubts.suggestions[wrong].tolist() == labels[wrong].tolist()
    assert (doubts.scores[wrong] > 0.5).all()
    assert (np.delete(doubts.scores, wrong) < 0.5).all()
    assert ((doubts.scores >= 0) & (doubts.scores <= 1)).all()


def test_the_order_of_the_images_and_the_scale_of_features_change_nothing():
    features, labels = clusters(apart=1.0)
    order = np.random.default_rng(0).permutation(len(labels))
    doubts = label_doubts(features, labels, 4)
    again = label_doubts(features[order] * 1000 + 5, labels[order], 4)
    np.testing.assert_allclose(again.scores, doubts.scores[order], atol=2e-3)


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 0, 0, 0], 2), ([0, 1], 2), ([0, 1, 2, 3], 4), ([0, 0, 0, 1], 3), ([0], 1), ([], 3)]
)
def test_few_images_single_classes_and_flat_features_are_no_failure(labels, classes):
    for features in (np.zeros((len(labels), 5), np.float32), np.eye(5, dtype=np.float32)[: len(labels)]):
        doubts = label_doubts(features, np.array(labels, np.int64), classes)
        assert np.isfinite(doubts.scores).all()
        assert len(doubts.suggestions) == len(labels)


@pytest.mark.parametrize(("rows", "size"), [(30, 8), (20, 60)])
def test_whitened_features_vary_equally_and_are_shrunk_as_ledoit_and_wolf_say(rows, size):
    random = np.random.default_rng(0)
    features = (random.normal(size=(rows, size)) @ random.normal(size=(size, size)) + 3).astype(np.float32)
    spectrum = Whitening(features)
    standard = (features - spectrum.mean) / spectrum.scale
    assert spectrum.shrinkage == pytest.approx(ledoit_wolf_shrinkage(standard, assume_centered=True))
    spectrum.shrinkage = 0.0
    if rows > size:
        np.testing.assert_allclose(np.cov(spectrum.whitened().T, bias=True), np.eye(size), atol=1e-3)
    assert np.isfinite(spectrum.whitened()).all()
