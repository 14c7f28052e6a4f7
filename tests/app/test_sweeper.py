"""Sweeps that are resumed, searched and limited; nothing is trained, each job leaves a result that it is told."""

from __future__ import annotations

import json
import math
import sys
from contextlib import contextmanager

import pytest
import yaml

from bbframe.app import sweep_jobs, sweeper, train
from bbframe.app.sweep_jobs import Launch
from bbframe.sweep import job_lock


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """The jobs that have been trained. `ran.broken` are seeds that fail, `ran.seconds` what a job takes."""

    class Ran(list):
        broken: tuple[int, ...] = ()
        seconds = 1.0

    jobs = Ran()

    def fake(self, job, position):
        jobs.append(job)
        if job.config["seed"] in jobs.broken:
            raise ValueError(f"seed {job.config['seed']} is broken")
        lr = job.config["optim"]["lr"]
        result = {"status": "ok", "metric": "accuracy", "mode": "max", "best_epoch": 1, "gmacs": lr, "params": 5}
        result |= {"val": {"accuracy": 1 - abs(math.log10(lr) + 2) / 5}, "seconds": {"total": jobs.seconds}}
        (job.folder / "config.yaml").write_text(yaml.safe_dump(job.config))
        (job.folder / "metrics.json").write_text(json.dumps({**result, "peak_memory_bytes": 1}))

    monkeypatch.setattr(Launch, "train", fake)
    monkeypatch.setattr("bbframe.sweep.leaderboard.write", lambda folder: "the table")
    return jobs


def seeds(ran):
    return [job.config["seed"] for job in ran]


@pytest.mark.long
@pytest.mark.parametrize(
    "again", ["resume=s", pytest.param("-m seed=4,3,2,1 hydra.sweep.dir=s", marks=pytest.mark.slow)]
)
def test_a_resumed_sweep_runs_what_is_missing_and_nothing_else(again, at, ran, capsys):
    assert train.main("-m seed=1,2,3,4 hydra.sweep.dir=s".split()) == 0
    folders = {job.config["seed"]: job.folder for job in ran}
    (folders[3] / "metrics.json").unlink()
    before = {seed: (folder / "metrics.json").stat().st_mtime_ns for seed, folder in folders.items() if seed != 3}
    ran.clear()
    assert train.main(again.split()) == 0
    assert seeds(ran) == [3]
    assert ran[0].folder == folders[3]
    assert before == {seed: (folders[seed] / "metrics.json").stat().st_mtime_ns for seed in before}
    assert "4 runs in s, 3 of them done before" in capsys.readouterr().out
    ran.clear()
    assert train.main(again.split()) == 0
    assert seeds(ran) == []


@pytest.mark.long
def test_a_failed_job_is_run_again_and_a_longer_sweep_adds_to_it(at, ran, capsys):
    ran.broken = (2,)
    assert train.main("-m seed=1,2 hydra.sweep.dir=s".split()) == 1
    assert "seed 2 is broken" in (at / "s" / "1_resnet18" / "error.txt").read_text()
    ran.clear()
    ran.broken = ()
    assert train.main("-m seed=1,2,3 hydra.sweep.dir=s".split()) == 0
    assert seeds(ran) == [2, 3]
    assert not (at / "s" / "1_resnet18" / "error.txt").exists()
    assert [job.folder.name for job in ran] == ["1_resnet18", "2_resnet18"]
    ran.clear()
    assert train.main("resume=s seed=1,9".split()) == 0  # what is given beside replaces what the sweep had
    assert seeds(ran) == [9]


@pytest.mark.slow
def test_a_refused_combination_keeps_its_folder_and_may_pass_later(at, ran):
    line = "-m backbone.out_indices=[1,3],[2,9] hydra.sweep.dir=s"
    for _ in range(2):
        assert train.main(line.split()) == 1
        assert sorted(path.name for path in (at / "s").iterdir() if path.is_dir()) == ["0_resnet18", "1_failed"]
    assert len(ran) == 1
    text = (at / "s" / "sweep.yaml").read_text()
    (at / "s" / "sweep.yaml").write_text(text.replace("backbone.out_indices=[2,9]", "backbone.out_indices=[2,4]"))
    assert train.main("-m backbone.out_indices=[1,3],[2,4] hydra.sweep.dir=s".split()) == 0
    assert sorted(path.name for path in (at / "s").iterdir() if path.is_dir()) == ["0_resnet18", "1_resnet18"]


@pytest.mark.long
def test_flags_that_say_where_configuration_is_are_given_again(at, ran, capsys):
    (at / "mine" / "backbone").mkdir(parents=True)
    (at / "mine" / "backbone" / "own.yaml").write_text("defaults: [resnet18, _self_]\n")
    assert train.main("-cd mine -m backbone=own seed=1,2 hydra.sweep.dir=s".split()) == 0
    assert train.main(["resume=s"]) == 1
    assert "its sweep was given --config-dir mine; give it again: --config-dir mine" in capsys.readouterr().err
    assert train.main("-cd mine resume=s".split()) == 0
    assert seeds(ran) == [1, 2]


@pytest.mark.long
def test_a_job_that_another_process_runs_is_left_to_it(at, ran, capsys, monkeypatch):
    @contextmanager
    def locked(folder):
        yield not folder.name.startswith("1_")

    monkeypatch.setattr(sweep_jobs, "job_lock", locked)
    for module in (sweeper, job_lock):
        monkeypatch.setattr(module, "is_running", lambda folder: folder.name.startswith("1_"))
    assert train.main("-m seed=1,2,3 hydra.sweep.dir=s".split()) == 0
    assert seeds(ran) == [1, 3]
    assert "another process runs 1_resnet18" in capsys.readouterr().out


@pytest.mark.long
def test_combinations_that_are_the_same_run_are_run_once(at, ran, capsys):
    assert train.main("-m seed=1,2,1 optim.lr=0.01,1e-2 hydra.sweep.dir=s".split()) == 0
    assert seeds(ran) == [1, 2]
    assert "6 runs in s, 4 repeat others and are left out" in capsys.readouterr().out


@pytest.mark.long
def test_jobs_without_a_record_are_no_sweep_to_go_on_with(at, ran, capsys):
    (at / "s" / "0_x").mkdir(parents=True)
    (at / "s" / "0_x" / "metrics.json").write_text("{}")
    assert train.main("-m seed=1,2 hydra.sweep.dir=s".split()) == 1
    assert "hydra.sweep.dir=s holds jobs without the sweep's record, sweep.yaml" in capsys.readouterr().err
    assert not ran


@pytest.mark.long
def test_what_a_budget_leaves_out_is_said_and_resumed(at, ran, capsys):
    ran.seconds = 1000.0
    assert train.main("-m seed=1,2,3 hydra.sweep.dir=s hydra.sweeper.budget=10m".split()) == 1
    assert seeds(ran) == [1]
    said = capsys.readouterr().out
    assert said.count("its like took up to 1000 s, and hydra.sweeper.budget leaves") == 2
    assert "LEFT OUT seed=3" in said
    assert (at / "s" / "2_resnet18" / "left_out.txt").is_file()
    assert train.main("resume=s".split()) == 0
    assert seeds(ran) == [1, 2, 3]
    assert not (at / "s" / "2_resnet18" / "left_out.txt").exists()


SEARCH = ["-m", "optim.lr=tag(log, interval(1e-4, 1e-1))", "hydra.sweep.dir=s"]


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="needs the extra search")


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow)])
def test_a_search_finds_more_than_its_median(sampler, optuna, at, ran, capsys):
    assert train.main([*SEARCH, "hydra.sweeper.trials=12", f"hydra.sweeper.sampler={sampler}"]) == 0
    values = sorted(json.loads((job.folder / "metrics.json").read_text())["val"]["accuracy"] for job in ran)
    assert len(values) == 12
    assert all(1e-4 * 0.999 <= job.config["optim"]["lr"] <= 1e-1 * 1.001 for job in ran)
    (best,) = yaml.safe_load((at / "s" / "best.yaml").read_text())
    assert best["value"] == values[-1] > values[5]
    assert "best of the search, by validation (best.yaml):" in capsys.readouterr().out


@pytest.mark.long
def test_a_search_goes_on_where_it_was_killed_and_retries_what_failed(optuna, at, ran, capsys):
    ran.broken = (5,)
    assert train.main([*SEARCH, "seed=5", "hydra.sweeper.trials=3"]) == 1
    assert (len(ran), len({job.folder for job in ran})) == (3, 3)
    first = [job.config["optim"]["lr"] for job in ran]
    ran.clear()
    ran.broken = ()
    assert train.main(["resume=s"]) == 0
    assert [job.config["optim"]["lr"] for job in ran] == first
    ran.clear()
    assert train.main(["resume=s", "hydra.sweeper.trials=5"]) == 0
    assert len(ran) == 2
    assert "a search of 5 trials in s" in capsys.readouterr().out


@pytest.mark.long
def test_a_search_repeats_no_configuration(optuna, at, ran, capsys):
    line = ["-m", "optim.lr=choice(0.1,0.01)", "hydra.sweeper.trials=6", "hydra.sweep.dir=s"]
    assert train.main(line) == 0
    assert sorted(job.config["optim"]["lr"] for job in ran) in ([0.01, 0.1], [0.01], [0.1])
    assert capsys.readouterr().out.count("repeats") == 6 - len(ran)


@pytest.mark.long
def test_a_trial_that_is_refused_is_reported_and_the_search_goes_on(optuna, at, ran, capsys):
    line = (
        "-m backbone.out_indices=choice([3],[9]) optim.lr=interval(0.01,0.1) hydra.sweeper.trials=6 hydra.sweep.dir=s"
    )
    assert train.main(line.split()) == 1
    assert "no stage 9" in capsys.readouterr().err
    assert 0 < len(ran) < 6


@pytest.mark.long
def test_several_objectives_leave_the_pareto_set(optuna, at, ran, capsys):
    assert train.main([*SEARCH, "hydra.sweeper.trials=6", "hydra.sweeper.objectives=[accuracy,gmacs]"]) == 0
    rows = yaml.safe_load((at / "s" / "best.yaml").read_text())
    assert all(set(row) == {"folder", "accuracy", "gmacs", "overrides"} for row in rows)
    for row in rows:
        assert not any(o["accuracy"] > row["accuracy"] and o["gmacs"] < row["gmacs"] for o in rows)


@pytest.mark.slow
def test_a_search_and_a_grid_do_not_share_a_folder(optuna, at, ran, capsys):
    assert train.main([*SEARCH, "hydra.sweeper.trials=2"]) == 0
    assert train.main("-m seed=1,2 hydra.sweep.dir=s".split()) == 1
    assert "hydra.sweep.dir=s holds a search; resume=s goes on with it" in capsys.readouterr().err
    assert train.main("-m seed=1,2 hydra.sweep.dir=g".split()) == 0
    assert train.main(["-m", "optim.lr=interval(0.01,0.1)", "hydra.sweep.dir=g", "hydra.sweeper.trials=2"]) == 1
    assert "hydra.sweep.dir=g holds a sweep over listed values" in capsys.readouterr().err
    assert len(ran) == 4


@pytest.mark.long
def test_a_search_with_objectives_is_resumed_by_its_record(optuna, at, ran):
    assert train.main([*SEARCH, "hydra.sweeper.trials=2", "hydra.sweeper.objectives=[accuracy,gmacs]"]) == 0
    assert train.main(["resume=s", "hydra.sweeper.trials=3"]) == 0
    assert len(ran) == 3


@pytest.mark.long
def test_a_record_leads_to_no_other_folder(at, ran, capsys):
    assert train.main("-m seed=1,2 hydra.sweep.dir=s".split()) == 0
    (at / "mine").mkdir()
    (at / "mine" / "error.txt").write_text("dear to me")
    (at / "s" / "link").symlink_to(at / "mine")
    record = (at / "s" / "sweep.yaml").read_text()
    for place in ("link", "link/x", ".", ""):
        text = yaml.safe_load(record)
        text["jobs"].append({"folder": place, "sha256": None, "overrides": ["seed=9"]})
        (at / "s" / "sweep.yaml").write_text(yaml.safe_dump(text))
        assert train.main(["resume=s"]) == 1
        assert "leads out of it" in capsys.readouterr().err
    assert (at / "mine" / "error.txt").read_text() == "dear to me"


@pytest.mark.long
def test_resume_runs_jobs_that_another_command_had_added(at, ran):
    assert train.main("-m seed=1,2 hydra.sweep.dir=s".split()) == 0
    assert train.main("resume=s seed=3".split()) == 0
    for folder in ("0_resnet18", "2_resnet18"):
        (at / "s" / folder / "metrics.json").unlink()
    ran.clear()
    assert train.main(["resume=s"]) == 0
    assert sorted(seeds(ran)) == [1, 3]


@pytest.mark.long
def test_a_mistake_is_forgotten_once_it_is_not_asked_any_more(at, ran):
    assert train.main("-m backbone.out_indices=[4],[9] hydra.sweep.dir=s".split()) == 1
    assert (at / "s" / "1_failed" / "error.txt").is_file()
    assert train.main("-m backbone.out_indices=[4],[3] hydra.sweep.dir=s".split()) == 0
    assert not (at / "s" / "1_failed").exists()


@pytest.mark.long
def test_a_quoted_value_of_a_list_stays_one_value(at, ran):
    assert train.main(["-m", 'name=choice("a b","é<x>")', "hydra.sweep.dir=s"]) == 0
    assert [job.config["name"] for job in ran] == ["a b", "é<x>"]


@pytest.mark.long
def test_a_recipe_may_ask_for_a_search(optuna, at, ran):
    (at / "mine" / "recipes").mkdir(parents=True)
    recipe = {"hydra": {"mode": "MULTIRUN", "sweeper": {"trials": 3, "params": {"optim.lr": "interval(0.01,0.1)"}}}}
    (at / "mine" / "recipes" / "find.yaml").write_text("# @package _global_\n" + yaml.safe_dump(recipe))
    assert train.main("-cd mine recipes=find".split()) == 0
    assert len(ran) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m seed=1,2,3 hydra.sweeper.trials=3", "a search over seeds finds the luckiest one"),
        ("-m optim.lr=0.1 hydra.sweeper.trials=3", "name some, such as 'optim.lr=tag(log, interval(1e-5, 1e-2))'"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.sampler=gp", "hydra.sweeper.sampler belongs to a search; add"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.trials=0", "hydra.sweeper.trials=0 must be a whole number from 1 on"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.trials=many", "hydra.sweeper.trials=many must be a whole number"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.budget=30", "must be a time with its unit"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.jobs_per_device=0", "hydra.sweeper.jobs_per_device=0 must be a whole"),
        ("-m optim.lr=interval(0.1,inf) hydra.sweeper.trials=3", "the ends of an interval must be numbers"),
        (
            "-m optim.lr=tag(log,range(1,1000000000)) hydra.sweeper.trials=3",
            "names more than 1000 values",
        ),
        ("-m seed=1,2 hydra.sweep.dir=run", "hydra.sweep.dir=run is the folder of a run; give another folder"),
        ("resume=", "resume= names no folder"),
        ("-m optim.lr=interval(2,1) hydra.sweeper.trials=3", "the interval must rise; write interval(1, 2)"),
        (
            "-m optim.lr=0.1,0.2 hydra.sweeper.trails=3",
            "no setting 'hydra.sweeper.trails'; did you mean 'hydra.sweeper.trials'?",
        ),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.trials=3 hydra.sweeper.sampler=tpa", "did you mean 'tpe'?"),
        ("-m optim.lr=0.1,0.2 hydra.sweeper.trials=3 hydra.sweeper.objectives=[test/f1]", "use val/f1"),
        ("resume=nowhere", "resume=nowhere: give the folder of a sweep; one run goes on by ckpt_path=<run folder>"),
        ("resume=true", "resume=true: give the folder of a sweep"),
        ("resume=run", "resume=run is one run; go on with it by ckpt_path=run"),
        ("resume=many", "resume=many: holds no sweep, which has a sweep.yaml; sweeps in it: one"),
        ("resume=hostile", "its record sets hydra.job.env_set.PATH, which only your own command line may"),
        ("resume=masked", "optim.token was masked in the record; give it again"),
        ("resume=plugged", "its sweep used the plugin 'mine.parts'; give it again: --plugin mine.parts"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(line, said, optuna, at, ran, capsys):
    (at / "run").mkdir()
    (at / "run" / "config.yaml").write_text("seed: 1\n")
    for name, text in {
        "many/one": "overrides: [seed=1]\n",
        "hostile": "overrides: ['seed=1,2', hydra.job.env_set.PATH=x]\n",
        "masked": "overrides: ['seed=1,2', '+optim.token=***']\n",
        "plugged": "overrides: ['seed=1,2']\nplugins: [{module: mine.parts, sha256: ab}]\n",
    }.items():
        (at / name).mkdir(parents=True)
        (at / name / "sweep.yaml").write_text(text)
    assert train.main(line.split()) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert not ran


@pytest.mark.long
def test_a_search_without_optuna_names_the_extra(at, ran, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert train.main([*SEARCH, "hydra.sweeper.trials=3"]) == 1
    assert capsys.readouterr().err.strip().endswith("not installed: pip install 'bbframe[search]'")
