"""A budget: times as people write them, and jobs that would not end in time."""

from __future__ import annotations

import json
import time

import pytest

from bbframe.files import dump_yaml
from bbframe.sweep.budget import Budget, expected_seconds, parse_budget
from bbframe.sweep.jobs import Job

CONFIG = {
    "seed": 1,
    "backbone": {"model_type": "resnet", "revision": None},
    "data": {"name": "digits", "bits": None},
    "head": {"name": "linear"},
    "task": {"name": "classification"},
    "trainer": {"max_epochs": 3, "max_steps": -1, "precision": "32-true"},
    "optim": {"lr": 0.1},
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5 hours", 5400),
        ("2 days", 172800),
        ("10min", 600),
    ],
)
def test_a_time_is_read_with_its_unit(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "h", "-5m", "0s", "3 fortnights", "5m and more"])
def test_a_time_without_a_unit_is_refused(text):
    with pytest.raises(ValueError, match=r"hydra\.sweeper\.budget=.* must be a time with its unit, such as 90s, 30m"):
        parse_budget(text)


def with_result(folder, seconds, **changes):
    folder.mkdir()
    config = {**CONFIG, "backbone": {"model_type": "resnet", "revision": "abc"}, **changes}
    (folder / "config.yaml").write_text(dump_yaml(config))
    result = {"status": "ok", "seconds": {"total": seconds}, "metric": "accuracy", "val": {"accuracy": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(result))


def test_a_job_is_left_out_when_its_like_took_longer_than_what_is_left(tmp_path):
    with_result(tmp_path / "0", 50.0, seed=7, optim={"lr": 0.5})
    with_result(tmp_path / "1", 900.0, trainer={**CONFIG["trainer"], "max_epochs": 90})
    job = Job(None, CONFIG, [], tmp_path / "2")
    assert Budget(time.time() + 100, tmp_path).refusal(job) is None
    assert "its like took up to 50 s" in Budget(time.time() + 40, tmp_path).refusal(job)
    unknown = Job(None, {**CONFIG, "backbone": {"model_type": "swin"}}, [], tmp_path / "3")
    assert Budget(time.time() + 40, tmp_path).refusal(unknown) is None
    assert "used up" in Budget(time.time() - 1, tmp_path).refusal(unknown)


def test_nothing_is_expected_of_a_job_whose_like_has_not_run():
    assert expected_seconds(CONFIG, []) is None
