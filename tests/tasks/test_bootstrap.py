"""Bootstrap intervals: what they should be on data whose answer is known."""

import math
import time

import numpy as np
import pytest
from torchmetrics.functional.classification import multiclass_f1_score

from bbframe.tasks.bootstrap import interval, intervals, macro_f1, means


def classified(images, classes, accuracy, seed=0):
    """Labels and predictions (N,) of a classifier that is right so often."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    return labels, np.where(random.random(images) < accuracy, labels, random.integers(0, classes, images))


@pytest.mark.parametrize("kind", ["right or wrong", "real numbers"])
def test_the_interval_of_a_mean_is_the_normal_one_for_many_images(kind):
    random = np.random.default_rng(0)
    values = (random.random(4000) < 0.9).astype(float) if kind == "right or wrong" else random.normal(3, 2, 4000)
    low, high = interval(values)
    reach = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.12 * reach)


def test_it_covers_the_truth_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = interval((random.random(300) < 0.8).astype(float), resamples=300)
        covered += low <= 0.8 <= high
    assert 181 <= covered <= 198  # of 200; 190 are expected


def test_the_seed_decides_and_the_order_of_the_images_does_not():
    values = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    assert interval(values) == interval(values) == interval(values[::-1])
    assert interval(values) != interval(values, seed=1)


def test_without_variation_there_is_no_width_and_without_images_no_interval():
    assert interval(np.ones(50)) == (1.0, 1.0)
    assert interval(np.array([0.25])) == (0.25, 0.25)
    with pytest.raises(ValueError, match="a bootstrap needs one image or more"):
        interval(np.array([]))


def test_a_lower_level_is_narrower():
    values = np.random.default_rng(0).random(500)
    (low, high), (inner_low, inner_high) = interval(values), interval(values, level=0.5)
    assert low < inner_low < inner_high < high


@pytest.mark.parametrize(("classes", "images"), [(2, 40), (10, 500), (50, 60)])
def test_the_f1_of_a_resample_is_that_of_torchmetrics(classes, images):
    import torch

    labels, predicted = classified(images, classes, 0.6)
    drawn = np.random.default_rng(1).multinomial(images, np.full(images, 1 / images), size=4)
    expected = []
    for counts in drawn:
        index = np.repeat(np.arange(images), counts)
        pair = (torch.from_numpy(side[index]) for side in (predicted, labels))
        expected.append(float(multiclass_f1_score(*pair, num_classes=classes, average="macro")))
    assert macro_f1(labels, predicted, drawn) == pytest.approx(expected, abs=1e-6)


def statistics(rows, drawn):
    return {"accuracy": means(rows[:, 0] == rows[:, 1], drawn), "f1": macro_f1(*rows.T, drawn)}


@pytest.mark.parametrize(("images", "classes"), [(300, 10), (1000, 1000), (10_000, 1000)])
def test_a_centred_metric_lies_inside_its_interval_also_with_few_images_a_class(images, classes):
    """With one image a class, the F1 of every resample is below the one of the test."""
    rows = np.stack(classified(images, classes, 0.7), axis=1)
    (value,) = macro_f1(*rows.T, np.ones((1, images), int))
    found = intervals(rows, statistics, centred=["f1"])
    low, high = found["f1"]
    assert low < value < high
    assert (low + high) / 2 == pytest.approx(value, abs=0.2 * (high - low))
    right = (rows[:, 0] == rows[:, 1]).mean()
    assert found["accuracy"][0] < right < found["accuracy"][1]


def test_ten_thousand_images_of_ten_classes_take_less_than_half_a_second():
    rows = np.stack(classified(10_000, 10, 0.9), axis=1)
    started = time.process_time()
    intervals(rows, statistics, centred=["f1"])
    assert time.process_time() - started < 0.5
