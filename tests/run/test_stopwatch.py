"""The seconds of a run's steps, also while they go on, and after a resume."""

import time

import pytest

from bbframe.run.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_steps_are_timed_while_they_go_on_and_within_each_other(clock):
    watch = Stopwatch()
    with watch.timed("total"):
        clock[0] += 1
        with watch.timed("fit"):
            clock[0] += 2
            assert watch.seconds() == {"total": 3, "fit": 2}
        clock[0] += 4
    clock[0] += 50
    assert watch.seconds() == {"total": 7, "fit": 2}


def test_a_resumed_run_counts_on(clock):
    watch = Stopwatch()
    with watch.timed("total"):
        clock[0] += 1
        watch.go_on_from({"total": 10, "fit": 8})
        with watch.timed("fit"):
            clock[0] += 2
        with watch.timed("test"):
            clock[0] += 3
    assert watch.seconds() == {"total": 16, "fit": 10, "test": 3}


def test_a_step_that_is_done_twice_takes_the_sum(clock):
    watch = Stopwatch()
    for _ in range(2):
        with watch.timed("test"):
            clock[0] += 1.234567
    assert watch.seconds() == {"test": 2.47}
