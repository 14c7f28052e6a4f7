"""Student's t interval against scipy, and against how often it holds the truth."""

import statistics

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from bbframe.sweep.statistics import independent_means, t_interval


def test_the_t_interval_is_scipys():
    values = [0.91, 0.95, 0.93, 0.9]
    found = t_interval(values)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found == pytest.approx((statistics.fmean(values), low, high))
    assert t_interval([0.9, 0.9]) == pytest.approx((0.9, 0.9, 0.9))


def test_one_value_has_no_interval():
    found = t_interval([0.9])
    assert found == (0.9, None, None)
    assert not found.holds_zero


def test_the_t_interval_holds_the_truth_95_times_in_100():
    draws = np.random.default_rng(0).normal(3, 2, size=(2000, 3))
    held = sum(low <= 3 <= high for _, low, high in map(t_interval, draws.tolist()))
    assert held / 2000 == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("values", "means"),
    [
        ({(1, None): 0.9, (2, None): 0.8}, [0.9, 0.8]),
        ({(1, 0): 0.9, (1, 1): 0.7, (2, 0): 0.6, (2, 1): 0.8}, [0.8, 0.7]),
        ({(1, 0): 0.9, (1, 1): 0.7}, [0.9, 0.7]),
        ({(1, 0): 0.9}, [0.9]),
    ],
)
def test_runs_of_one_seed_count_once_and_splits_count_for_one_seed(values, means):
    """Four runs of two seeds on two splits are no four independent values."""
    assert independent_means(values) == pytest.approx(means)
