"""Calibration: the error of known probabilities, and the temperature that scores were multiplied with."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from bbframe.tasks.calibration import calibration_error, fit_temperature, reliability


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_images():
    confidences, right = np.array([0.9, 0.92, 0.6, 1.0]), np.array([True, False, True, True])
    assert calibration_error(confidences, right) == pytest.approx((2 * 0.41 + 0.4 + 0) / 4)


def test_bins_are_equally_wide_and_hold_their_upper_edge():
    bins = reliability(np.array([0.0, 0.25, 0.26, 0.5, 1.0]), np.array([0, 1, 1, 0, 1]), bins=4)
    assert bins[:, 0].tolist() == [2, 2, 0, 1]
    assert bins[:, 1].tolist() == pytest.approx([0.125, 0.38, 0.625, 1.0])
    assert bins[:, 2].tolist() == pytest.approx([0.5, 0.5, np.nan, 1.0], nan_ok=True)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_error_is_the_one_of_torchmetrics(classes):
    scores = torch.randn(2000, classes, generator=torch.Generator().manual_seed(0)) * 2
    labels = torch.distributions.Categorical(logits=scores / 2).sample()
    shares, predicted = scores.softmax(1).max(1)
    ours = calibration_error(shares.double().numpy(), (predicted == labels).numpy())
    assert ours == pytest.approx(float(multiclass_calibration_error(scores, labels, classes, n_bins=15)), abs=2e-5)


def drawn(temperature, classes=5, images=20_000):
    """Scores (N, K) whose labels (N,) are drawn from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(images, classes, generator=generator)
    shares = (scores / temperature).softmax(1)
    return scores, torch.multinomial(shares, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    scores, labels = drawn(temperature)
    assert fit_temperature(scores, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_no_other_temperature_has_less_cross_entropy(temperature):
    scores, labels = drawn(temperature, images=200)
    best = fit_temperature(scores, labels)
    loss = [float(F.cross_entropy(scores.double() / t, labels)) for t in (best, 0.99 * best, 1.01 * best, 1.0)]
    assert min(loss) == loss[0] < loss[-1]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (torch.eye(4), [0, 1, 2, 3]),  # without a mistake, colder is always better
        (torch.eye(4), [1, 2, 3, 0]),  # without a hit, hotter is
        (torch.tensor([[0.0, torch.nan]]), [0]),
    ],
)
def test_where_no_temperature_is_best_there_is_none(scores, labels):
    assert fit_temperature(scores, torch.tensor(labels)) is None
