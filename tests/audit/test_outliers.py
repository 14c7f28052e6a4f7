"""Outliers: far from their own class, whatever the others do."""

from __future__ import annotations

import numpy as np

from bbframe.audit.outliers import UNUSUAL, class_outliers


def test_an_image_in_the_midst_of_another_class_is_an_outlier_of_its_own():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    features = (np.eye(8)[labels] * 10 + random.normal(size=(60, 8))).astype(np.float32)
    features[5] = features[40] + 0.1
    found = class_outliers(features, labels)
    assert found.unusual.argmax() == 5
    assert found.unusual[5] > UNUSUAL
    assert found.scores[5] > 0.5
    assert ((found.scores >= 0) & (found.scores < 1)).all()


def test_small_classes_and_equal_images_have_none():
    labels = np.array([0] * 4 + [1] * 20)
    features = np.ones((24, 3), np.float32)
    found = class_outliers(features, labels)
    assert np.isnan(found.distances[:4]).all()
    assert not (found.unusual > UNUSUAL).any()
    assert len(class_outliers(features[:0], labels[:0]).scores) == 0
