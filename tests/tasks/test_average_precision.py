"""How the average precision varies when images are drawn again."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.tasks import average_precision as module
from bbframe.tasks.average_precision import average_precision, precision_curve, precision_intervals, resampled_means
from bbframe.tasks.detection_matches import SIZES, match_images
from tests.tasks.test_detection_matches import CLASSES, cocos_precision, scene


@pytest.fixture(scope="module")
def images():
    draw = np.random.default_rng(7)
    return [scene(draw) for _ in range(12)]


@pytest.mark.parametrize("areas", [(0.0, np.inf), SIZES["medium"]])
def test_a_weight_counts_an_image_as_often_as_it_says(images, areas):
    """Scores are made different, because equal ones of two copies of an image could come in another order."""
    images = [
        (found._replace(scores=found.scores + 1e-4 * np.arange(len(found.scores)) + 1e-3 * i), truth)
        for i, (found, truth) in enumerate(images)
    ]
    weights = np.random.default_rng(0).integers(0, 4, (5, len(images)))
    weights[4] = 0
    found = average_precision(match_images(images, CLASSES, areas=areas), weights)
    for row, weight in zip(found, weights, strict=True):
        copies = [image for image, count in zip(images, weight, strict=True) for _ in range(count)]
        np.testing.assert_allclose(row, average_precision(match_images(copies, CLASSES, areas=areas)), atol=1e-12)
    assert np.isnan(found[4]).all()


def test_curves_are_cocos(images):
    expected, matches = cocos_precision(images, 100), match_images(images, CLASSES)
    for label in range(3):
        for level in (0, 5):
            np.testing.assert_allclose(
                precision_curve(matches, label, level), expected[level, :, label, 0], atol=1e-12
            )


def test_samples_have_the_mean_of_the_classes_that_they_hold(images, monkeypatch):
    matches = match_images(images, CLASSES)
    whole = resampled_means(matches)
    assert {name: len(values) for name, values in whole.items()} == {"mAP": 1000, "mAP50": 1000}
    share = np.full(len(images), 1 / len(images))
    weights = np.random.default_rng(0).multinomial(len(images), share, 1000)
    each = average_precision(matches, weights[:5])
    np.testing.assert_allclose(whole["mAP"][:5], np.nanmean(each, axis=(1, 2)))
    np.testing.assert_allclose(whole["mAP50"][:5], np.nanmean(each[:, 0], axis=1))
    monkeypatch.setattr(module, "MEMORY", 1)  # a sample at a time
    monkeypatch.setattr(module, "RESAMPLES", 200)
    small = resampled_means(matches)
    assert len(small["mAP"]) == 200


def test_an_interval_holds_the_measured_value_and_is_narrower_for_more_images(images):
    draw = np.random.default_rng(8)
    more = [*images, *(scene(draw) for _ in range(100))]
    widths = []
    for some in (images, more):
        matches = match_images(some, CLASSES)
        measured = np.nanmean(average_precision(matches), axis=1)
        bounds = precision_intervals(matches)
        for name, value in (("mAP", measured.mean()), ("mAP50", measured[0])):
            low, high = bounds[name]
            assert 0 <= low < value < high <= 1
        widths.append(bounds["mAP"][1] - bounds["mAP"][0])
    assert widths[1] < 0.6 * widths[0]


def test_without_objects_there_is_no_interval(images):
    empty = [(found, truth._replace(crowd=np.ones_like(truth.crowd))) for found, truth in images]
    assert precision_intervals(match_images(empty, CLASSES)) == {}
    assert precision_intervals(match_images([], CLASSES)) == {}
