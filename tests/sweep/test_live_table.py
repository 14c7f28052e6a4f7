"""What a sweep shows while it runs."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from bbframe.sweep import live_table
from bbframe.sweep.progress import Progress


def progress(done, failed=0, **more):
    return Progress(4, done, failed, 0, more.pop("running", []), more.pop("best", None), more.pop("left", None))


def test_jobs_elsewhere_are_told_of_whenever_one_has_ended(monkeypatch, capsys):
    monkeypatch.setattr(live_table, "EVERY", 0.001)
    states = [progress(0), progress(0), progress(1), progress(1, 1, best=("seed=1", "val/accuracy", 0.5)), progress(4)]
    seen = iter(states)

    def observe():
        return next(seen, states[-1])

    with live_table.progress_shown(observe, elsewhere=True):
        time.sleep(0.2)
    assert capsys.readouterr().out.splitlines() == [
        "1 of 4 done",
        "1 of 4 done, 1 failed, best val/accuracy 0.5000 (seed=1)",
        "4 of 4 done",
    ]


def test_what_ends_last_is_told_too(capsys):
    state = [progress(3)]
    with live_table.progress_shown(lambda: state[0], elsewhere=True):
        time.sleep(0.1)
        state[0] = progress(4)
    assert capsys.readouterr().out == "4 of 4 done\n"


def test_a_job_in_this_process_prints_its_own_lines(capsys):
    with live_table.progress_shown(lambda: pytest.fail("is not asked"), elsewhere=False):
        pass
    assert capsys.readouterr().out == ""


def test_the_table_says_what_runs_what_is_best_and_how_long_it_takes():
    console = Console(width=80, record=True, file=io.StringIO())
    shown = progress(1, 1, running=[("seed=2", 3)], best=("seed=1", "val/accuracy", 0.25), left=600)
    console.print(live_table.progress_table(shown))
    lines = [
        line.split(maxsplit=1) for line in console.export_text().replace("best so far", "best-so-far").splitlines()
    ]
    assert ["done", "1 of 4"] in [[word, rest.strip()] for word, rest in lines]
    text = " ".join(" ".join(line) for line in lines)
    for part in ("failed 1", "seed=2 (3 epochs done)", "val/accuracy 0.2500 seed=1", "time left about 10 min"):
        assert part in " ".join(text.split())
