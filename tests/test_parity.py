"""The golden cases: the same maps and gradients as the reference, and the same names on disk."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

import bbframe
from bbframe import AutoBackbone
from bbframe.auto import backbone_class, config_from_dict
from bbframe.keymap import KeyMap
from bbframe.schema import pair

from .tiny import GOLDEN, cases, distance, free, golden_config, images, names, shaken, tiny, variants

every_case = pytest.mark.parametrize("case", cases())


def stages_of(case):
    """The stages whose maps the reference gives, in order: all but the stem, which some give no map of."""
    expected = {key.split(".")[2] for key in load_file(GOLDEN / case / "expected.safetensors") if "feature." in key}
    features = golden_config(case).out_features
    stated = json.loads((GOLDEN / case / "config.json").read_text())
    if "window_block_indexes" in stated:  # which follows from the selection, so that it alone was asked for
        features = stated["out_features"]
    assert expected <= set(features) <= expected | {"stem"}
    return [name for name in features if name in expected]


def as_in_transformers(name):
    """The fields with which transformers' backbone class computes, where others are the default for a reason."""
    return {"token_order": "rows"} if name == "hiera" else {}


def load(case, **options):
    return AutoBackbone.from_pretrained(GOLDEN / case, out_features=stages_of(case), **options)


def test_every_architecture_has_golden_cases():
    assert {case.partition("/")[0] for case in cases()} == set(names())


@every_case
def test_maps_and_gradients_are_those_of_the_reference(case):
    net = load(case, **as_in_transformers(case.partition("/")[0]))
    expected = load_file(GOLDEN / case / "expected.safetensors")
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
        assert all(name.endswith("_index") or name.startswith("layernorm.") for name in report.ignored)
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
    kept = {bare: full for bare, full in net.keys.strip(golden).items() if not net.keys.ignores(bare)}
    saved = {bare: net.keys.saved(bare) for bare in kept}
    if json.loads((GOLDEN / case / "config.json").read_text())["architectures"] == [type(net).__name__]:
        assert saved == kept
    assert all(net.keys.may_lack(bare) for bare, full in net.keys.strip(ours).items() if full not in saved.values())
    assert all(torch.equal(ours[saved[bare]], golden[full]) for bare, full in kept.items())
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


# exchange with transformers, where it is installed

peer = pytest.mark.peer
exchanged = [*cases(), *(f"{name}/{i}" for name in names() for i in range(6))]


def peers(name, kind="Backbone"):
    """transformers' class for an architecture of ours: the backbone, or what it is a part of."""
    transformers = pytest.importorskip("transformers")
    ours = backbone_class(name).__name__.removesuffix("Backbone")
    found = getattr(transformers, ours + kind, None)
    if found is None or ours == "Dinat":  # whose attention it takes from old versions of NATTEN
        pytest.skip(f"this transformers does not run {ours}{kind}")
    return found


def exchanged_stages(name, config):
    """The stages whose maps transformers has too: some of its backbones have no map of the stem, or another one."""
    shared = {stage for case in cases() if case.startswith(f"{name}/") for stage in stages_of(case)}
    return [stage for stage in config.stage_names if stage != "stem" or stage in shared]


def exchanged_backbone(case):
    """A backbone of random weights in a golden configuration, or in one of ours that transformers can run."""
    name, _, which = case.partition("/")
    config = variants(name, 6)[int(which)] if which.isdecimal() else golden_config(case)
    vars(config).update(as_in_transformers(name))
    if free(config):
        config.out_features = exchanged_stages(name, config)
    beyond = (
        getattr(config, "width_factor", 1) > 1,  # other channels than the next stage expects
        getattr(config, "use_absolute_embeddings", False),  # a table with one place too many
        1 in getattr(config, "pretrained_window_sizes", ()),  # a division of 0 by 0
        name == "vitpose_backbone" and [(s + 4) // config.patch_size for s in sides(config)] != list(config.grid),
        name == "lw_detr_vit" and sides(config)[0] / config.num_windows % config.num_windows_side != 0,
        name == "rt_detr_resnet" and _halves_a_shortcut_alone(config),
        name == "hiera" and not runs_as_a_hiera_of_transformers(config),
    )
    if any(beyond):
        pytest.skip("transformers does not run this configuration")
    net = shaken(AutoBackbone.from_config(config))
    if name == "pixio":  # whose two norms change places there when they are saved and loaded
        net.norm.load_state_dict({"weight": net.final_weight, "bias": net.final_bias})
    return net


def sides(config):
    """The height and the width of the images that a position table belongs to."""
    return pair(config.image_size)


def sizes_that_transformers_takes(config):
    """Two sizes of images, the second odd where any size will do."""
    top = max(stage.stride for stage in config.stages)
    if config.model_type in ("hiera", "vitpose_backbone"):
        return [sides(config)] * 2
    if config.model_type == "lw_detr_vit":  # as many windows along a side, none of them with a rest
        top *= math.isqrt(config.num_windows)
        return [(2 * top, 3 * top), (2 * top + 1, top + config.patch_size - 1)]
    if config.model_type == "rf_detr_dinov2":  # it exchanges height and width where it cuts windows
        top *= config.num_windows
        return [(2 * top, 2 * top), (top + 1, top + 1)]
    return [(2 * top, 3 * top), (2 * top + 1, top + top // 2)]


def runs_as_a_hiera_of_transformers(config):
    """Whether its grid is that of the positions, in whole units, and units are those that are pooled to one place."""
    side = config.query_stride ** (len(config.depths) - 1)
    patches = zip(sides(config), pair(config.patch_size), pair(config.patch_padding), strict=True)
    grid = tuple((size + 2 * padding - patch) // config.patch_stride + 1 for size, patch, padding in patches)
    return grid == config.grid and not any(count % side for count in grid) and config.masked_unit_size == side


def _halves_a_shortcut_alone(config):
    """Whether the first stage of basic blocks changes the channels but not the size, as no ResNet does."""
    same = config.embedding_size == config.hidden_sizes[0]
    return config.layer_type == "basic" and not (same or config.downsample_in_first_stage)


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", exchanged)
def test_folders_are_exchanged_with_transformers(case, tmp_path):
    net = exchanged_backbone(case)
    peer_class = peers(case.partition("/")[0])
    net.save_pretrained(tmp_path / "ours")
    theirs, told = peer_class.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["unexpected_keys"]
    assert all(key.endswith("_index") or ".layernorm." in key for key in told["missing_keys"])
    theirs.eval().save_pretrained(tmp_path / "theirs")
    saved, again = (load_file(tmp_path / who / "model.safetensors") for who in ("ours", "theirs"))
    again = net.as_in_files(again)
    full = net.keys.strip(again)
    assert all(torch.equal(saved[name], again[full[bare]]) for bare, name in net.keys.strip(saved).items())
    back = AutoBackbone.from_pretrained(tmp_path / "theirs")
    assert type(back) is type(net)
    assert back.config == net.config
    assert not back.load_report.fresh
    weights = back.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    for size in sizes_that_transformers_takes(net.config):
        x = images(net, *size)
        with torch.no_grad():
            for ours, peer_map in zip(net(x).feature_maps, theirs(x).feature_maps, strict=True):
                if peer_map.ndim == 3:  # tokens
                    peer_map = peer_map.transpose(1, 2).unflatten(2, ours.shape[2:])
                print(f"{case}: {distance(ours, peer_map):.1e}")
                assert distance(ours, peer_map) < 1e-5


@peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names())
def test_classifiers_of_transformers_are_read(name, tmp_path):
    net = tiny(name, **as_in_transformers(name))
    net.out_features = exchanged_stages(name, net.config)
    classifier = peers(name, "ForImageClassification")
    config = {**net.config.to_dict(), "num_labels": 5}
    shaken(classifier(classifier.config_class(**config))).save_pretrained(tmp_path)
    theirs = peers(name).from_pretrained(tmp_path).eval()
    ours = AutoBackbone.from_pretrained(tmp_path, **as_in_transformers(name))
    assert ours.config == net.config
    assert any("classifier" in key or key.startswith("fc.") for key in ours.load_report.ignored)
    assert all(_may_lack(ours, key) for key in ours.load_report.fresh)
    x = images(ours, *sizes_that_transformers_takes(ours.config)[0])
    with torch.no_grad():
        for a, b in zip(ours(x).feature_maps, theirs(x).feature_maps, strict=True):
            assert distance(a, b) < 1e-5


def _may_lack(net, key):
    return all(map(net.keys.may_lack, net.keys.theirs(key)))
