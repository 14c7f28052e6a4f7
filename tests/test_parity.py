"""The golden cases: the same maps and gradients as the reference, and the same names on disk."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import bbframe
from bbframe import AutoBackbone
from bbframe.auto import backbone_class, config_from_dict
from bbframe.keymap import KeyMap

from .tiny import GOLDEN, cases, distance, golden_config, images, names

every_case = pytest.mark.parametrize("case", cases())


def load(case, **options):
    config = golden_config(case)
    return AutoBackbone.from_pretrained(GOLDEN / case, out_features=config.out_features, **options)


def test_every_architecture_has_golden_cases():
    assert {case.partition("/")[0] for case in cases()} == set(names())


@every_case
def test_maps_and_gradients_are_those_of_the_reference(case):
    net = load(case)
    expected = load_file(GOLDEN / case / "expected.safetensors")
    stages = {key.split(".")[2] for key in expected if key.startswith("feature.")}
    assert stages == set(net.out_features)
    for i in range(sum(key.startswith("input.") for key in expected)):
        x = expected[f"input.{i}"].requires_grad_()
        maps = net(x).feature_maps
        for stage, m in zip(net.out_features, maps, strict=True):
            assert distance(m, expected[f"feature.{i}.{stage}"]) < 1e-5, stage
        (grad,) = torch.autograd.grad(sum(m.cos().sum() for m in maps), x)
        assert distance(grad, expected[f"grad.{i}"]) < 1e-4


@every_case
def test_everything_in_a_golden_checkpoint_is_accounted_for(case):
    net = load(case)
    report, saved_by = net.load_report, json.loads((GOLDEN / case / "config.json").read_text())["architectures"][0]
    assert not report.adapted
    assert not report.not_built
    assert set(report.loaded) | set(report.fresh) == set(net.state_dict())
    if saved_by.endswith("Backbone"):
        assert not report.ignored
        assert not report.fresh
    on_disk = net.keys.strip(load_file(GOLDEN / case / "model.safetensors"))
    assert len(on_disk) == sum(len(net.keys.theirs(name)) for name in report.loaded) + len(report.ignored)
    assert str(report).startswith(f"{GOLDEN / case}: {len(report.loaded)} tensors loaded")


@every_case
def test_saved_backbones_read_back_bit_for_bit_in_the_hubs_names(case, tmp_path):
    net = load(case)
    net.preprocessing = bbframe.Preprocessing(mean=(0.5, 0.25, 0.125), size=(96, 64), interpolation="bilinear")
    net.save_pretrained(tmp_path / "deep" / "folder")
    again = AutoBackbone.from_pretrained(tmp_path / "deep" / "folder")
    assert again.config == net.config
    assert again.preprocessing == net.preprocessing
    assert again.load_report.preprocessing == "preprocessor_config.json"
    assert not again.load_report.fresh
    assert not again.load_report.unknown_config
    x = images(net, 64, 96)
    with torch.no_grad():
        for a, b in zip(again(x).feature_maps, net(x).feature_maps, strict=True):
            assert torch.equal(a, b)
    ours = load_file(tmp_path / "deep" / "folder" / "model.safetensors")
    golden = load_file(GOLDEN / case / "model.safetensors")
    named = {net.keys.saved_prefix + bare: golden[full] for bare, full in net.keys.strip(golden).items()}
    kept = {name for name in named if not net.keys.ignores(name.removeprefix(net.keys.saved_prefix))}
    assert kept <= set(ours)
    assert all(net.keys.may_lack(name.removeprefix(net.keys.saved_prefix)) for name in set(ours) - kept)
    assert all(torch.equal(ours[name], named[name]) for name in kept)
    data = json.loads((tmp_path / "deep" / "folder" / "config.json").read_text())
    assert data["architectures"] == [type(net).__name__]
    assert config_from_dict(data) == net.config


@every_case
def test_key_tables_are_reversible_and_without_overlap(case):
    net = load(case)
    keys: KeyMap = net.keys
    for ours in net.state_dict():
        assert all(keys.ours(theirs) == ours for theirs in keys.theirs(ours))
        assert not any(keys.ignores(theirs) for theirs in keys.theirs(ours))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", cases())
def test_folders_are_exchanged_with_transformers(case, tmp_path):
    transformers = pytest.importorskip("transformers")
    net = load(case)
    peer_class = getattr(transformers, type(net).__name__, None)
    if peer_class is None:
        pytest.skip(f"this transformers has no {type(net).__name__}")
    x = images(net, 64, 96)
    with torch.no_grad():
        net.save_pretrained(tmp_path / "ours")
        theirs = peer_class.from_pretrained(tmp_path / "ours").eval()
        theirs.save_pretrained(tmp_path / "theirs")
        back = AutoBackbone.from_pretrained(tmp_path / "theirs")
        assert type(back) is backbone_class(net.config.model_type)
        assert back.out_features == net.out_features
        for ours, peer, again in zip(net(x).feature_maps, theirs(x).feature_maps, back(x).feature_maps, strict=True):
            print(f"{case}: {distance(ours, peer):.1e}")
            assert distance(ours, peer) < 1e-5
            assert torch.equal(ours, again)
