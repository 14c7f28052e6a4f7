"""The nearest rows by cosine: against the whole table, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.extraction import cosine_neighbours
from bbframe.extraction.cosine_neighbours import nearest_rows


def whole_table(X, Y, alone):
    X, Y = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (X, Y))
    table = X.astype(np.float64) @ Y.T.astype(np.float64)
    if alone:
        np.fill_diagonal(table, -np.inf)
    return table


@pytest.mark.parametrize("block", [1, 700, 2**24])
@pytest.mark.parametrize("alone", [True, False])
def test_the_nearest_rows_are_those_of_the_whole_table(block, alone, monkeypatch):
    monkeypatch.setattr(cosine_neighbours, "BLOCK_VALUES", block)
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(60, 7)).astype(np.float32), random.normal(size=(40, 7)).astype(np.float32)
    similarities, places = nearest_rows(X, None if alone else Y, 5)
    table = whole_table(X, X if alone else Y, alone)
    assert places.tolist() == np.argsort(-table, axis=1, kind="stable")[:, :5].tolist()
    np.testing.assert_allclose(similarities, np.take_along_axis(table, places, 1), atol=1e-6)


def test_of_equal_rows_the_first_comes_first_and_none_is_its_own_neighbour():
    X = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    similarities, places = nearest_rows(X, None, 3)
    assert places[0].tolist() == [1, 2, 3]
    assert places[5].tolist() == [4, 6, 7]
    assert (similarities == 1).all()
    assert (places != np.arange(12)[:, None]).all()


def test_a_row_of_zeros_has_no_direction():
    X = np.zeros((4, 3), np.float32)
    X[1] = 1
    similarities, places = nearest_rows(X, None, 3)
    assert np.isfinite(similarities).all()
    assert places[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_rows_are_refused(k):
    with pytest.raises(ValueError, match=rf"k={k} must be within 1\.\.3"):
        nearest_rows(np.ones((4, 2), np.float32), None, k)
