"""Every logger is told of a run what it should know, and goes on with the same run when that is resumed."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from bbframe.app import train
from bbframe.app.composition import composition, plain_data
from bbframe.app.option_help import option_help
from bbframe.registry import make, parse_part
from bbframe.run.lightning_parts import check_installed, parse_lightning_parts
from bbframe.run.loggers import PROJECT, _environment_kept, _event_folder, _flat
from tests.run.helpers import TINY, command

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def composed(*overrides):
    with composition() as compose:
        return plain_data(compose, list(overrides))["logger"]


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("logger=csv", []),
        ("logger=mlflow", ["mlflow"]),
        ("logger=[csv,mlflow]", ["mlflow"]),
        ("logger=[wandb,trackio,tensorboard]", ["wandb", "trackio", "tensorboard"]),
        ("logger=[]", []),
    ],
)
def test_one_or_several_loggers_are_chosen(override, keys):
    loggers = composed(override)
    assert list(loggers) == keys
    assert list(parse_lightning_parts("logger", loggers)) == keys


def test_a_recipe_chooses_several_loggers(tmp_path):
    (tmp_path / "recipes").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /logger: [csv, mlflow]\n"
    (tmp_path / "recipes" / "two.yaml").write_text(text)
    with composition(tmp_path) as compose:
        assert list(plain_data(compose, ["recipes=two"])["logger"]) == ["mlflow"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("logger=null", "logger=null names no choice; give one, or for none at all logger=[]"),
        ("logger=[csv,mlfow]", "logger=mlfow: the group 'logger' has no such file; did you mean 'mlflow'?"),
    ],
)
def test_a_logger_that_is_none_is_one_line(override, said, capsys):
    assert train.main([override, "--cfg", "job"]) == 1
    assert capsys.readouterr().err.strip() == f"error: {said}"


def test_help_shows_every_logger():
    text = option_help({"logger": {"mlflow": {}}}, "logger")
    assert "value:   mlflow" in text
    assert all(f"\n  {name} " in text for name in ("csv", "tensorboard", "wandb", "mlflow", "trackio"))
    with composition() as compose:
        config = plain_data(compose, ["logger=trackio"])
    assert "meaning: null: bbframe" in option_help(config, "logger.trackio.project")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_logger_that_is_not_installed_names_its_extra(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    ((key, part),) = parse_lightning_parts("logger", composed(f"logger={name}")).items()
    with pytest.raises(
        ValueError, match=rf"^logger\.{name}: \w+ needs a package .*: pip install 'bbframe\[{name}\]'$"
    ):
        check_installed(f"logger.{key}", part)


def test_a_configuration_becomes_flat_parameters():
    assert dict(_flat({"a": {"b": 1, "c": [1, None]}, "d": "x" * 300})) == {
        "a/b": "1",
        "a/c": "[1, None]",
        "d": "x" * 250,
    }


@pytest.mark.parametrize("before", [None, "mine"])
def test_what_a_library_does_to_the_environment_ends_with_it(before, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if before is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    with _environment_kept("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = "another"
    assert os.environ.get("MLFLOW_TRACKING_URI") == before


def test_the_events_of_tensorboard_lie_where_its_options_say():
    assert _event_folder(composed("logger=tensorboard")["tensorboard"]) == Path("tensorboard")
    assert _event_folder({"save_dir": "a", "version": 3}) == Path("a/lightning_logs/3")


# with the packages

QUICK = [*TINY, "trainer.log_every_n_steps=1", "tags=[first,second]", "name=tried"]


def needs(*names):
    missing = [name for name in names if find_spec(PACKAGES[name]) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs the extras {', '.join(missing)}")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, and an environment that names no service."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def rows(database: Path, query: str):
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(query).fetchall()


FOREIGN = pytest.mark.filterwarnings("ignore")  # what the packages warn of is theirs


@FOREIGN
@needs("mlflow", "trackio", "tensorboard")
@pytest.mark.loggers
def test_a_run_and_its_resume_are_one_run_in_every_logger(place):
    chosen = "logger=[csv,mlflow,trackio,tensorboard]"
    first = command(*QUICK, chosen, "trainer.max_epochs=1")
    ids = json.loads((first / "loggers.json").read_text())
    assert set(ids) == {"mlflow", "trackio"}
    resumed = command(f"ckpt_path={first}", "trainer.max_epochs=2")
    assert json.loads((resumed / "loggers.json").read_text()) == ids

    (run,) = rows(resumed / "mlflow.db", "select run_uuid, name, status from runs")
    assert run == (ids["mlflow"], "tried", "FINISHED")
    assert rows(resumed / "mlflow.db", "select name from experiments where name != 'Default'") == [(PROJECT,)]
    metrics = rows(resumed / "mlflow.db", "select distinct key, step from metrics where key = 'val/accuracy'")
    assert len(metrics) == 2
    assert rows(resumed / "mlflow.db", "select count(*) from metrics where key = 'test/accuracy'")[0][0] == 2
    parameters = dict(rows(resumed / "mlflow.db", "select key, value from params"))
    assert parameters["backbone/hidden_sizes"] == "[8, 16, 24, 32]"
    assert parameters["trainer/max_epochs"] == "1"
    tags = dict(rows(resumed / "mlflow.db", "select key, value from tags"))
    assert tags["first"] == tags["second"] == "true"
    assert tags["resumed/trainer/max_epochs"] == "2"

    assert len(rows(first / "mlflow.db", "select distinct step from metrics where key = 'val/accuracy'")) == 1

    logged = rows(resumed / "trackio" / "bbframe.db", "select distinct run_name from metrics")
    assert logged == [(f"tried-{ids['trackio']}",)]
    events = sorted(path.name for path in (first / "tensorboard").glob("events*"))
    assert set(events) < {path.name for path in (resumed / "tensorboard").glob("events*")}

    again = command(f"rerun={first}")
    assert json.loads((again / "loggers.json").read_text()).keys() == ids.keys()
    assert not set(json.loads((again / "loggers.json").read_text()).values()) & set(ids.values())


@FOREIGN
@needs("trackio")
@pytest.mark.loggers
def test_trackio_meets_the_contract_of_loggers(place):
    logger = make("logger", parse_part("logger", "trackio", "logger"), place)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.finalize("success")
    logger.finish()
    assert rows(place / "trackio" / "bbframe.db", "select step from metrics") == [(1,)]


@FOREIGN
@needs("mlflow")
@pytest.mark.loggers
def test_the_environment_says_where_mlflow_writes(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mine.db")
    folder = command(*QUICK, "logger=mlflow", "trainer.max_epochs=1", "test=false")
    assert not (folder / "mlflow.db").exists()
    assert rows(place / "mine.db", "select name, status from runs") == [("tried", "FINISHED")]


@FOREIGN
@needs("mlflow")
@pytest.mark.loggers
def test_a_service_that_cannot_be_reached_is_one_line(place, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert train.main([*QUICK, "logger=mlflow"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: logger.mlflow: cannot start: ")
    assert line.endswith("; logger=csv trains without it")


@FOREIGN
@needs("mlflow")
@pytest.mark.loggers
def test_the_jobs_of_a_sweep_are_runs_of_their_own(place):
    limits = ["trainer.max_epochs=1", "test=false", "trainer.limit_train_batches=1", "hydra.sweep.dir=sweep"]
    assert train.main(["-m", *QUICK, "logger=[csv,mlflow]", "seed=1,2", *limits]) == 0
    stores = sorted(Path("sweep").glob("*/mlflow.db"))
    assert [rows(store, "select count(*) from runs") for store in stores] == [[(1,)], [(1,)]]


@FOREIGN
@needs("wandb")
@pytest.mark.loggers
def test_wandb_works_offline_and_resumes_its_run(place):
    offline = ["logger=wandb", "logger.wandb.mode=offline"]
    first = command(*QUICK, *offline, "trainer.max_epochs=1")
    resumed = command(f"ckpt_path={first}", "trainer.max_epochs=2")
    ids = [json.loads((folder / "loggers.json").read_text())["wandb"] for folder in (first, resumed)]
    assert ids[0] == ids[1]
    for folder in (first, resumed):
        (kept,) = (folder / "wandb").glob(f"offline-run-*-{ids[0]}")
        assert any(kept.glob("*.wandb"))
