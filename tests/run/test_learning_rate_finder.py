"""The search for a learning rate: what it suggests, and that a run is after it what it was before."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bbframe.run.learning_rate_finder as finder
from bbframe.run.cluster import process_count
from bbframe.run.learning_rate_finder import RangeTest, find_learning_rate, mean_losses, suggested
from bbframe.tasks.optimizer import parameter_groups
from tests.run.trial import built

RATES = np.geomspace(1e-6, 10, 120).tolist()


def valley(lowest):
    """Losses that fall until a rate and rise behind it."""
    return [2 - math.log10(r / 1e-6) / 4 if r <= lowest else 2 * (r / lowest) ** 2 for r in RATES]


@pytest.mark.parametrize("lowest", [1e-3, 0.1])
def test_a_tenth_of_the_best_rate_is_suggested(lowest):
    assert suggested(RATES, valley(lowest)) == pytest.approx(lowest / 10, rel=0.6)
    noise = np.random.default_rng(0).normal(0, 0.05, len(RATES))
    assert suggested(RATES, list(valley(lowest) + noise)) == pytest.approx(lowest / 10, rel=0.7)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        valley(0.1)[:12],  # too short
        [2.0] * 120,  # nothing is learnt
        [2.0 * 1.2**i for i in range(120)],  # it rises from the start
        [math.inf] * 120,
    ],
    ids=["empty", "short", "flat", "rising", "infinite"],
)
def test_nothing_is_suggested_where_no_rate_stands_out(losses):
    assert suggested(RATES[: len(losses)], losses) is None


def test_losses_that_are_not_finite_are_left_out_of_the_mean():
    assert mean_losses([1.0, math.nan, 3.0]) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "more", [{}, {"layer_decay": 0.5}, {"backbone_lr": 0.01}, {"backbone_lr": 1.0, "layer_decay": 0.5}]
)
def test_every_group_has_the_rate_that_it_would_train_at(optim, more):
    _, _, task, _ = built(f"optim={optim}")
    options = replace(task.optim, **more)

    def rates(lr):
        """The rate of each parameter."""
        groups = parameter_groups(task.backbone, task.head, replace(options, lr=lr))
        return {id(parameter): group["lr"] for group in groups for parameter in group["params"]}

    probe = replace(options, lr=2 * (options.backbone_lr or 0.5))
    groups = parameter_groups(task.backbone, task.head, probe)
    for group in groups:
        group["initial_lr"] = group["lr"]
    test, trainer = RangeTest(probe), SimpleNamespace(optimizers=[SimpleNamespace(param_groups=groups)], global_step=0)
    test.on_train_start(trainer, task)
    for step in (0, 40, finder.STEPS - 1):
        trainer.global_step = step
        test.on_train_batch_start(trainer, task, None, 0)
        wanted = rates(finder.LOWEST * (finder.HIGHEST / finder.LOWEST) ** (step / (finder.STEPS - 1)))
        now = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        assert now == pytest.approx(wanted)


def state(task):
    generators = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    return {name: value.clone() for name, value in task.state_dict().items()}, task.training, generators


@pytest.mark.long
def test_a_run_is_after_the_search_what_it_was_before(tmp_path, monkeypatch):
    monkeypatch.setattr(finder, "STEPS", 28)
    monkeypatch.chdir(tmp_path)
    plan, _, task, data = built("optim.lr=auto")
    (tmp_path / "run").mkdir()
    weights, training, generators = state(task)
    first = find_learning_rate(plan, task, data, tmp_path / "run")
    assert find_learning_rate(plan, task, data, tmp_path / "run") == first
    after, training_after, generators_after = state(task)
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert training_after == training
    assert torch.equal(generators[0], generators_after[0])
    assert generators[1:] == generators_after[1:]
    assert task.optim.lr == "auto"
    assert data.state_dict() == {}
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "run",
        "run/pictures",
        "run/pictures/learning_rate.png",
    }


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STEPS", 5, "in 5 steps from 1e-06 to 10 the loss did not fall by 2% before it rose"),
        ("LOWEST", 1e25, "found no learning rate"),  # nan at once
    ],
)
def test_a_search_without_result_says_what_to_type(name, value, said, tmp_path, monkeypatch):
    monkeypatch.setattr(finder, name, value)
    monkeypatch.setattr(finder, "HIGHEST", max(finder.HIGHEST, value))
    plan, _, task, data = built("optim=sgd", "optim.lr=auto")
    with pytest.raises(
        ValueError, match=r"^optim: lr=auto found no .*; type a number, such as optim\.lr=0\.001$"
    ) as caught:
        find_learning_rate(plan, task, data, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("devices", [2, (0, 1), "0,1"])
def test_processes_are_counted_before_they_are_started(devices):
    plan, *_ = built()
    assert process_count(replace(plan.trainer, devices=devices)) == 2
    assert process_count(replace(plan.trainer, devices=devices, num_nodes=3)) == 6
