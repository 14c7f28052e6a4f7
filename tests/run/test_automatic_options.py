"""What was found stands in the record, and is not sought again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

import bbframe.run.automatic_options as automatic
from bbframe.app.composition import composition, plain_data
from bbframe.app.run_request import RunRequest
from bbframe.files import dump_yaml
from bbframe.run.automatic_options import settle_automatic_options
from tests.run.helpers import command, summary
from tests.run.trial import RESNET, built

BOTH = ("optim.lr=auto", "data.batch_size=auto")


def never(*_):
    raise AssertionError("it is not sought again")


def test_what_is_found_is_recorded_and_used(tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "find_learning_rate", lambda *_: 0.002)
    monkeypatch.setattr(automatic, "find_batch_size", lambda *_: 24)
    plan, config, task, data = built(*BOTH)
    plan, found = settle_automatic_options(plan, config, task, data, None, tmp_path)
    assert found == {"data.batch_size": 24, "optim.lr": 0.002}
    assert (plan.optim.lr, plan.data.batch_size, task.optim.lr, data.batch_size) == (0.002, 24, 0.002, 24)
    recorded = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (recorded["optim"]["lr"], recorded["data"]["batch_size"]) == (0.002, 24)


def test_a_resumed_run_keeps_what_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "find_learning_rate", never)
    monkeypatch.setattr(automatic, "find_batch_size", never)
    saved = SimpleNamespace(run=SimpleNamespace(config={"optim": {"lr": 0.003}, "data": {"batch_size": 40}}))
    plan, config, task, data = built(*BOTH)
    plan, found = settle_automatic_options(plan, config, task, data, saved, tmp_path)
    assert found == {"data.batch_size": 40, "optim.lr": 0.003}


def test_numbers_are_left_alone(tmp_path, monkeypatch):
    plan, config, task, data = built()
    assert settle_automatic_options(plan, config, task, data, None, tmp_path) == (plan, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "rate", "size"),
    [([], 0.002, 24), (["optim.lr=auto"], "auto", 24), (["data.batch_size=auto", "seed=3"], 0.002, "auto")],
)
def test_a_rerun_seeks_only_what_is_typed_again(given, rate, size, tmp_path):
    with composition() as compose:
        config = plain_data(compose, list(BOTH))
        config["optim"]["lr"], config["data"]["batch_size"] = 0.002, 24
        (tmp_path / "config.yaml").write_text(dump_yaml(config))
        (tmp_path / "overrides.yaml").write_text(dump_yaml(list(BOTH)))
        data = RunRequest(compose, [f"rerun={tmp_path}", *given]).data
    assert (data["optim"]["lr"], data["data"]["batch_size"]) == (rate, size)


@pytest.mark.slow
def test_a_run_finds_both_and_its_resume_and_rerun_keep_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [word for word in RESNET if "batch_size" not in word]
    first = command(*quick, *BOTH, "trainer.max_epochs=1")
    found = summary(first)["found"]
    assert set(found) == {"data.batch_size", "optim.lr"}
    assert "optim.lr=auto" in (first / "overrides.yaml").read_text()
    assert "(auto)" in (first / "train.log").read_text()
    assert (first / "pictures" / "learning_rate.png").is_file()
    monkeypatch.setattr(automatic, "find_learning_rate", never)
    monkeypatch.setattr(automatic, "find_batch_size", never)
    again = command(f"rerun={first}")
    assert summary(again)["test"] == summary(first)["test"]
    command(f"ckpt_path={first}", *BOTH, "trainer.max_epochs=2")
