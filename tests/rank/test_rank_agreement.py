"""Agreement of orders: tau, regret, finalists and the winner among them."""

from __future__ import annotations

import math

import pytest

from bbframe.rank.rank_agreement import finalists, first_choice_regret, weighted_kendall, winner_among

TRUTH = [90.0, 80.0, 70.0, 60.0]


def test_tau_weighs_the_top_more():
    assert weighted_kendall([4, 3, 2, 1], TRUTH) == pytest.approx(1)
    assert weighted_kendall([1, 2, 3, 4], TRUTH) == pytest.approx(-1)
    assert weighted_kendall([4, 3, 1, 2], TRUTH) > weighted_kendall([3, 4, 2, 1], TRUTH)
    assert math.isnan(weighted_kendall([1, 1, 1, 1], TRUTH))


def test_regret_is_what_the_first_choice_lacks():
    assert first_choice_regret([4, 3, 2, 1], TRUTH) == 0
    assert first_choice_regret([1, 3, 2, 1], TRUTH) == 10
    assert first_choice_regret([5, 3, 5, 1], TRUTH) == 10  # 90 or 70


def test_finalists_are_the_best_by_each_in_turn():
    assert finalists([[1, 2, 3, 4]], 2) == [3, 2]
    assert finalists([[1, 2, 3, 4], [4, 3, 2, 1]], 2) == [3, 0]
    assert finalists([[1, 2, 3, 4], [1, 2, 3, 4]], 2) == [3, 2]
    assert sorted(finalists([[1, 2], [2, 1]], 9)) == [0, 1]


def test_a_tie_with_the_winner_wins():
    assert winner_among([1, 3], [5, 7, 7, 1])
    assert not winner_among([0, 3], [5, 7, 7, 1])
