"""A search: what it proposes, what it keeps, what it refuses; needs Optuna."""

from __future__ import annotations

import json
import math
import re

import pytest

from bbframe.sweep.search import Search, SearchOptions, objective_values, read_objectives
from bbframe.sweep.search_space import Choices, Span, as_override

pytest.importorskip("optuna", reason="needs the extra search")
SPACE = {"optim.lr": Span(1e-4, 1e-1, log=True), "task.freeze": Choices(("none", "1", "2"))}


def options(**changes):
    return SearchOptions(**{"trials": 12, "objectives": {}, **changes})


def value_of(trial):
    """The best is optim.lr=0.01 and task.freeze=2."""
    lr = float(trial.overrides[0].partition("=")[2])
    return 1 - abs(math.log10(lr) + 2) / 3 - 0.1 * (trial.overrides[1] != "task.freeze=2")


def finish(search, trial, folder, value=None, status="ok"):
    folder.mkdir(exist_ok=True)
    value = value_of(trial) if value is None else value
    result = {"status": status, "metric": "accuracy", "mode": "max", "val": {"accuracy": value}, "best_epoch": 1}
    result |= {"gmacs": 1 - value, "params": 3, "seconds": {"total": 2.0}, "peak_memory_bytes": 5}
    (folder / "metrics.json").write_text(json.dumps(result))
    search.note(trial, folder.name, None)
    return search.tell(trial, folder)


def run(folder, **changes):
    folder.mkdir(exist_ok=True)
    search = Search(folder, options(**changes), SPACE)
    trials = []
    while (trial := search.ask()) is not None:
        finish(search, trial, folder / str(trial.number))
        trials.append(trial)
    return search, trials


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp"])
def test_every_sampler_stays_in_the_space_and_repeats_itself(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    (_, first), (_, second) = (run(tmp_path / name, sampler=sampler, trials=5) for name in ("a", "b"))
    assert first == second
    assert len(first) == 5
    assert len({tuple(trial.overrides) for trial in first}) > 3
    for trial in first:
        lr, freeze = (override.partition("=")[2] for override in trial.overrides)
        assert 1e-4 * 0.999 <= float(lr) <= 1e-1 * 1.001
        assert freeze in ("none", "1", "2")


def test_another_seed_proposes_others(tmp_path):
    assert run(tmp_path / "a", trials=3)[1] != run(tmp_path / "b", trials=3, seed=1)[1]


def test_a_search_beats_its_median_trial(tmp_path):
    search, trials = run(tmp_path / "a")
    ((_, overrides, (best,)),) = search.best()
    assert best == max(map(value_of, trials))
    assert best > sorted(map(value_of, trials))[len(trials) // 2]
    assert overrides[0].startswith("optim.lr=")


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path):
    whole = run(tmp_path / "whole", trials=6)[1]
    folder = tmp_path / "killed"
    folder.mkdir()
    for moment in range(6):  # a new process each, killed after it has asked, and once before it has told
        search = Search(folder, options(trials=6), SPACE)
        assert search.open_trials() == []
        trial = search.ask()
        assert trial == whole[moment]
        again = Search(folder, options(trials=6), SPACE)
        assert again.open_trials() == [trial]
        assert again.folder_of(trial) is None
        finish(again, trial, folder / str(trial.number))
    assert Search(folder, options(trials=6), SPACE).ask() is None
    assert Search(folder, options(trials=7), SPACE).ask() is not None  # more may be asked of it later


def test_two_processes_search_together(tmp_path):
    both = [Search(tmp_path, options(trials=4), SPACE) for _ in range(2)]
    numbers = [both[i % 2].ask().number for i in range(4)]
    assert numbers == [0, 1, 2, 3]
    assert both[0].ask() is both[1].ask() is None


def test_a_job_without_a_result_stays_open_and_a_twin_is_found(tmp_path):
    search = Search(tmp_path, options(), SPACE)
    trial = search.ask()
    search.note(trial, "0_x", "ff")
    assert not search.tell(trial, tmp_path / "0_x")
    assert search.open_trials() == [trial]
    assert search.folder_of(trial) == "0_x"
    assert search.finished_twin("ff") is None
    (tmp_path / "0_x").mkdir()
    (tmp_path / "0_x" / "metrics.json").write_text(
        '{"status": "ok", "metric": "accuracy", "val": {"accuracy": 0.5}, "seconds": {"total": 1}}'
    )
    assert search.tell(trial, tmp_path / "0_x")
    assert search.finished_twin("ff") == "0_x"


def test_another_search_in_the_folder_is_refused(tmp_path):
    Search(tmp_path, options(), SPACE)
    with pytest.raises(ValueError, match=r"search whose space is optim.lr=.*, and now it is seed=1,2; give another"):
        Search(tmp_path, options(), {"seed": Choices(("1", "2"))})
    with pytest.raises(ValueError, match=r"whose objectives is the task's own=max, and now it is f1=max"):
        Search(tmp_path, options(objectives={"f1": "max"}), SPACE)
    with pytest.raises(ValueError, match=r"whose options is none, and now it is trainer.max_epochs=3"):
        Search(tmp_path, options(fixed=("trainer.max_epochs=3",)), SPACE)


def test_a_trial_without_all_of_its_values_is_proposed_anew(tmp_path):
    search = Search(tmp_path, options(trials=2), SPACE)
    search.study.ask()  # a process that was killed before it had written the values
    again = Search(tmp_path, options(trials=2), SPACE)
    assert again.open_trials() == []
    assert [len(again.ask().overrides) for _ in range(2)] == [2, 2]
    assert again.ask() is None


def test_a_journal_that_was_cut_within_a_line_goes_on(tmp_path):
    trial = Search(tmp_path, options(), SPACE).ask()
    with (tmp_path / "search.journal").open("ab") as journal:
        journal.write(b'{"op_code": 5, "worker')
    search = Search(tmp_path, options(), SPACE)
    assert search.open_trials() == [trial]
    assert search.ask().number == 1
    (tmp_path / "search.journal").write_bytes(b"no journal\n")
    with pytest.raises(ValueError, match=r"search.journal: is damaged; a new folder begins the search anew"):
        Search(tmp_path, options(), SPACE)


@pytest.mark.parametrize(("pruner", "worse"), [("median", True), ("hyperband", True), ("none", False)])
def test_a_pruner_gives_up_what_is_worse(pruner, worse, tmp_path):
    search = Search(tmp_path, options(pruner=pruner, trials=40, max_epochs=9), SPACE)
    for _ in range(10):
        trial = search.ask()
        stopped = [search.stops(trial.number, epoch, 0.9) for epoch in range(1, 10)]
        if pruner == "median":
            assert not any(stopped)
        finish(search, trial, tmp_path / str(trial.number), 0.9)
    bad = [search.ask() for _ in range(8)]
    stops = [any(search.stops(trial.number, epoch, 0.1) for epoch in range(1, 10)) for trial in bad]
    assert any(stops) is worse
    assert search.stops(bad[0].number, 1, float("nan")) in (True, False)
    assert finish(search, bad[0], tmp_path / "bad", 0.1, status="pruned")


def test_several_objectives_give_the_pareto_set(tmp_path):
    search = Search(tmp_path, options(trials=3, objectives={"accuracy": "max", "gmacs": "min"}), SPACE)
    for value in (0.2, 0.9, 0.5):
        trial = search.ask()
        finish(search, trial, tmp_path / str(trial.number), value)
    assert [folder for folder, _, _ in search.best()] == ["1"]  # here fewer GMACs go with more accuracy


def test_objectives_are_metrics_of_the_best_epoch_or_costs(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,val/accuracy,val/f1\n1,3,0.5,0.4\n2,6,0.8,0.7\n")
    result = {"metric": "accuracy", "val": {"accuracy": 0.8}, "best_epoch": 2, "seconds": {"total": 9}, "gmacs": 2.5}
    assert objective_values(result, tmp_path, {}) == [0.8]
    assert objective_values(result, tmp_path, {"f1": "max", "gmacs": "min", "seconds": "min"}) == [0.7, 2.5, 9]
    with pytest.raises(ValueError, match="measures no 'f2'; choose from: accuracy, f1, gmacs, seconds"):
        objective_values(result, tmp_path, {"f2": "max"})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, {}),
        ("accuracy", {"accuracy": "max"}),
        (["val/accuracy", "gmacs"], {"accuracy": "max", "gmacs": "min"}),
        ({"f1": "max", "loss": None}, {"f1": "max", "loss": "min"}),
    ],
)
def test_objectives_are_read_with_their_directions(given, read):
    assert read_objectives(given) == read


@pytest.mark.parametrize(
    ("given", "said"),
    [(["test/f1"], "would choose by the test images; use val/f1"), ({"f1": "up"}, "must be max or min")],
)
def test_objectives_that_do_not_serve_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        read_objectives(given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "tp"}, "hydra.sweeper.sampler=tp: must be one of tpe, random, cmaes, gp; did you mean 'tpe'?"),
        ({"pruner": "mean"}, "hydra.sweeper.pruner=mean: must be one of none, median, hyperband"),
        ({"pruner": "median", "objectives": {"a": "max", "b": "min"}}, "drop the pruner, or all but one objective"),
    ],
)
def test_options_that_do_not_serve_are_refused(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        options(**changes)


def test_a_number_is_written_as_people_read_it():
    assert as_override("optim.lr", 0.00049163866) == "optim.lr=0.0004916"
    assert as_override("a", 3) == "a=3"
    assert as_override("a", "none") == "a=none"
