"""Bootstrap over images: coverage, pairs, groups, ties, and the blocks that bound its memory."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.rank.resampling import Resampling


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        low, high = Resampling(np.arange(80), 400, seed).interval(random.random(80) < 0.7)
        covered += low <= 0.7 <= high
    assert 0.88 < covered / 200 <= 0.99


def test_rows_of_one_image_are_drawn_together():
    """Ten equal boxes an image say no more than one: the interval does not shrink with their number."""
    values = (np.random.default_rng(0).random(50) < 0.5).astype(float)
    one = Resampling(np.arange(50)).interval(values)
    ten = Resampling(np.repeat(np.arange(50), 10)).interval(np.repeat(values, 10))
    assert ten == pytest.approx(one)
    low, high = Resampling(np.arange(500)).interval(np.repeat(values, 10))
    assert high - low < 0.5 * (one[1] - one[0])


def test_pairs_are_surer_than_two_intervals():
    random = np.random.default_rng(0)
    one = (random.random(300) < 0.6).astype(float)
    other = np.maximum(one, random.random(300) < 0.1)
    low, high = (resampling := Resampling(np.arange(300))).difference(one, other)
    assert 0 < low < (other - one).mean() < high
    assert resampling.interval(one)[1] > resampling.interval(other)[0]
    assert resampling.difference(one, one) == (0.0, 0.0)


def test_ties_share_the_first_place():
    values = np.random.default_rng(0).random((1, 60))
    shares = Resampling(np.arange(60)).probability_of_being_best(np.concatenate([values, values, values - 1]))
    np.testing.assert_allclose(shares, [0.5, 0.5, 0.0])
    better = np.concatenate([values, values + 0.01 * np.random.default_rng(1).standard_normal((3, 60))])
    assert Resampling(np.arange(60)).probability_of_being_best(better).sum() == pytest.approx(1.0)


def test_blocks_draw_what_the_whole_draws(monkeypatch):
    values, groups = np.random.default_rng(0).random(40), np.arange(40) // 2
    whole = Resampling(groups, 50).ratios(values)
    monkeypatch.setattr("bbframe.rank.resampling.KEPT", 8 * 60)
    np.testing.assert_allclose(Resampling(groups, 50).ratios(values), whole)


def test_the_seed_decides():
    values = np.random.default_rng(0).random(40)
    assert Resampling(np.arange(40), seed=1).interval(values) == Resampling(np.arange(40), seed=1).interval(values)
    assert Resampling(np.arange(40), seed=1).interval(values) != Resampling(np.arange(40), seed=2).interval(values)


def test_a_ratio_leaves_out_resamples_without_its_rows():
    inside = np.zeros(10)
    inside[3] = 1
    resampling = Resampling(np.arange(10), 100)
    assert np.isnan(resampling.ratios(inside * 0.5, inside)).any()
    assert resampling.interval(inside * 0.5, inside) == (0.5, 0.5)


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="a bootstrap needs one image or more"):
        Resampling(np.array([]))
