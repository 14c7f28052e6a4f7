"""Finalists come from both orders by turns, rungs halve them, and epochs fit into the time that is left."""

import pytest

from bbframe.rank.race_plan import (
    JOB_SECONDS,
    choose_finalists,
    entrants_within,
    epochs_of_rung,
    kept_of,
    rungs_of,
)


def rows(**priors):
    return [{"name": name, "prior": None if top is None else {"top1": top}} for name, top in priors.items()]


@pytest.mark.parametrize(
    ("priors", "count", "expected"),
    [
        ({"a": 70, "b": 80, "c": 90, "d": 60}, 2, {"a": "probe", "c": "prior"}),
        ({"a": 90, "b": 80, "c": 70, "d": 60}, 2, {"a": "both", "b": "both"}),
        ({"a": 70, "b": 80, "c": 90, "d": 60}, 4, {"a": "probe", "c": "prior", "b": "both", "d": "probe"}),
        ({"a": None, "b": None, "c": None}, 2, {"a": "probe", "b": "probe"}),
        ({"a": None, "b": 80, "c": None}, 3, {"a": "probe", "b": "both", "c": "probe"}),
        ({"a": 70}, 4, {"a": "both"}),
        ({"a": 70, "b": 80}, 0, {}),
    ],
)
def test_finalists_are_the_best_by_probe_and_by_prior(priors, count, expected):
    found = choose_finalists(rows(**priors), count)
    assert set(found) == set(expected)
    assert len(found) == min(count, len(priors))
    if count:
        assert found["a"] in ("probe", "both")
    tops = {name: top for name, top in priors.items() if top is not None}
    if count > 1 and tops:
        assert max(tops, key=tops.get) in found


@pytest.mark.parametrize(("entrants", "rungs"), [(1, 1), (2, 1), (3, 2), (4, 2), (8, 3)])
def test_rungs_leave_two_for_the_last(entrants, rungs):
    assert rungs_of(entrants) == rungs


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("left", [20, 100, 1000, 10_000])
@pytest.mark.parametrize("costs", [[1.0], [2, 5], [1, 1, 10, 20]])
def test_a_rung_takes_no_more_than_its_share(costs, left, seeds):
    epochs = epochs_of_rung(costs, left, rungs_of(len(costs)), 50, seeds)
    time = (epochs or 0) * sum(costs) * seeds + JOB_SECONDS * len(costs) * seeds
    if epochs is None:
        assert JOB_SECONDS * len(costs) * seeds + sum(costs) * seeds > left / rungs_of(len(costs)) - 1e-9
    elif epochs == 50:
        assert time <= left
    else:
        assert time <= left / rungs_of(len(costs)) + 1e-9
        assert 1 <= epochs < 50


def test_entrants_that_do_not_fit_are_the_last_ones():
    costs = {"a": 5.0, "b": 5.0, "c": 500.0}
    names, epochs = entrants_within(list(costs), costs, 60, 10)
    assert names == ["a", "b"]
    assert epochs == 5
    assert entrants_within(list(costs), costs, 3, 10) == ([], None)
    assert entrants_within(list(costs), costs, 1e6, 10) == (["a", "b", "c"], 10)


@pytest.mark.parametrize(("mode", "best"), [("max", ["b", "a"]), ("min", ["c", "a"])])
def test_the_better_half_goes_on_and_a_lost_one_never(mode, best):
    assert kept_of({"a": 0.5, "b": 0.9, "c": 0.1, "d": None}, mode) == best
    assert kept_of({"a": None}, mode) == []
