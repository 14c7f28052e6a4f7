"""The benchmark of trust: its splits, its figures from given results, and its networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import rank_networks as networks
from benchmarks.rank_summary import summarise, tables
from benchmarks.rank_trust import made_scenes, split_classes


def result(good: float, params: int, chosen: float) -> dict:
    """What a split says of a network whose scores all are `good`."""
    stage = {"knn": good, "ridge": good, "lda": good, "logme": good}
    return {
        "params": params,
        "prior": 100 - 100 * good,
        "stages": [{key: value / 2 for key, value in stage.items()}, stage],
        "chosen": {"greedy": [0]},
        "chosen_scores": {"greedy": good},
        "reached": {"last": 100 * good, "all": 100 * good, "greedy": chosen},
    }


@pytest.fixture(scope="module")
def summary():
    goods = np.linspace(0.5, 0.9, 5)
    splits = [
        {"networks": {f"n{i}": result(good + 0.01 * s, 9 - i, 100 * good + s - 2) for i, good in enumerate(goods)}}
        for s in range(3)
    ]
    return {"task": "digits", "splits": 3, **summarise(splits)}


@pytest.mark.long
def test_a_score_that_orders_as_the_truth_has_no_regret_and_the_reverse_has_all(summary):
    good, bad = (summary["against"]["last"][name] for name in ("ridge, best stage", "prior"))
    assert (good["tau"]["mean"], good["regret"]["mean"], good["among_2"]["mean"]) == (pytest.approx(1), 0, 100)
    assert good["size"]["mean"] == pytest.approx(-1)
    assert bad["tau"]["mean"] == pytest.approx(-1)
    assert bad["regret"]["mean"] == pytest.approx(40)
    assert bad["among_4"]["mean"] == 0
    assert bad["regret_4"]["mean"] == pytest.approx(10)


def test_the_hybrid_takes_from_both_and_chance_lies_between(summary):
    figures = summary["against"]["last"]
    assert figures["hybrid: ridge and prior in turn"]["among_2"]["mean"] == 100
    assert 0 < figures["chance"]["regret"]["mean"] < 40
    assert figures["chance"]["among_2"]["mean"] == pytest.approx(40, abs=9)


def test_the_choice_of_stages_is_compared_in_pairs(summary):
    assert summary["stages"]["greedy less last, points"]["values"] == pytest.approx([-2, -2, -2])
    assert summary["stages"]["greedy: with the last stage, %"]["mean"] == 0


def test_the_figures_are_also_given_without_the_usual_winner(summary):
    assert summary["winners"] == {"n4": 3}
    assert summary["without"]["network"] == "n4"
    assert summary["without"]["against"]["last"]["prior"]["regret"]["mean"] == pytest.approx(30)


def test_a_share_of_few_splits_has_a_wide_interval_within_0_and_100(summary):
    share = summary["against"]["last"]["ridge, best stage"]["among_2"]
    assert (share["mean"], share["high"]) == (100, 100)
    assert 25 < share["low"] < 35


def test_the_tables_name_every_score_and_network(summary):
    text = tables(summary)
    for word in ("knn, best stage", "hybrid: ridge and prior in turn", "| n4 | 5 |", "greedy less last, points"):
        assert word in text


def test_no_two_splits_pretrain_on_the_same_classes():
    orders = [split_classes(split) for split in range(12)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({frozenset(order[:5]) for order in orders}) == 12
    assert split_classes(3) == orders[3]


def test_there_is_a_network_of_every_architecture():
    import bbframe

    assert list(networks.NETWORKS) == [name for name in bbframe.list_backbones() if name != "timm"]
    sizes = [networks.parameters(networks.network(name, 32, 0)) for name in networks.NETWORKS]
    assert max(sizes) / min(sizes) > 4


def test_a_network_learns_and_is_fine_tuned_as_a_copy():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randn(64, 3, 32, 32, generator=generator) * 0.1 + labels[:, None, None, None] - 0.5
    net = networks.network("resnet", 32, 0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    tuned = networks.fresh(net)
    read = networks.train_classifier(tuned, [1, 3], images, labels, 2, networks.Schedule(8), 0)
    assert networks.accuracy(tuned, read, [1, 3], images, labels) > 90
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [X.shape for X in networks.stage_features(net, images)] == [(64, c) for c in net.channels]


@pytest.mark.long
def test_scenes_hold_the_given_scans_and_a_detector_learns_from_them():
    images, targets = made_scenes(np.arange(40), list(range(10)), 8, "test")
    assert images.shape == (8, 3, 64, 64)
    assert all(len(each["boxes"]) == len(each["labels"]) > 0 for each in targets)
    net = networks.network("resnet", 64, 0)
    features = networks.box_features(net, images, [each["boxes"] for each in targets])
    assert features[-1].shape == (sum(len(each["boxes"]) for each in targets), net.channels[-1])
    detector = networks.train_detector(net, images, targets, 10, networks.Schedule(2, batch=4), 0)
    assert 0 <= networks.mean_precision(net, detector, images, targets) <= 100
