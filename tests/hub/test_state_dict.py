"""Weights in memory become a backbone: those of transformers, of timm and our own, with a report."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from bbframe import AutoBackbone
from tests.tiny import GOLDEN, cases, images

ONE_EACH = [*{case.partition("/")[0]: case for case in cases()}.values()]


@pytest.mark.parametrize("case", ONE_EACH)
def test_the_names_of_the_hub_are_read(case):
    net = AutoBackbone.from_pretrained(GOLDEN / case)
    config = json.loads((GOLDEN / case / "config.json").read_text())
    again = AutoBackbone.from_state_dict(config, load_file(GOLDEN / case / "model.safetensors"))
    assert not again.training
    assert again.load_report.loaded == net.load_report.loaded
    assert again.load_report.source == "state"
    x = images(net, 2 * max(net.strides), 2 * max(net.strides))
    with torch.no_grad():
        for one, other in zip(net(x).feature_maps, again(x).feature_maps, strict=True):
            assert torch.equal(one, other)


def resnet(**fields):
    config = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "embedding_size": 8}
    return {**config, "layer_type": "basic", "out_indices": [1, 4], **fields}


def test_a_wrapped_state_and_a_classifier_are_put_up_with():
    net = AutoBackbone.from_config(resnet())
    state = {f"module.backbone.{name}": x for name, x in net.state_dict().items()}
    state["fc.weight"] = torch.zeros(5, 32)
    found = AutoBackbone.from_state_dict(resnet(), {"epoch": 3, "state_dict": state}, out_indices=[2, 3])
    assert found.out_indices == [2, 3]
    assert found.load_report.ignored == ["fc.weight"]
    assert any("took 'state_dict'" in note for note in found.load_report.notes)
    whole = AutoBackbone.from_state_dict(net.config, net)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))


def test_the_weights_are_copies():
    net = AutoBackbone.from_config(resnet())
    found = AutoBackbone.from_state_dict(resnet(), net.state_dict(), dtype="bfloat16")
    assert found.dtype == torch.bfloat16
    again = AutoBackbone.from_state_dict(resnet(), net)
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert next(again.parameters()).abs().sum() > 0


@pytest.mark.long
def test_timms_networks_are_read_by_their_name_and_by_our_config():
    import timm

    theirs = timm.create_model("resnet18", num_classes=7).eval()
    by_name = AutoBackbone.from_state_dict("timm/resnet18", theirs.state_dict(), out_indices=[1, 4])
    config = {"model_type": "resnet", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    native = AutoBackbone.from_state_dict({**config, "layer_type": "basic", "out_indices": [1, 4]}, theirs)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, indices=[1, 4], intermediates_only=True)
        for net in (by_name, native):
            for one, other in zip(net(x).feature_maps, expected, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    again = AutoBackbone.from_state_dict(by_name.config, by_name)
    assert all(torch.equal(a, b) for a, b in zip(by_name.parameters(), again.parameters(), strict=True))


@pytest.mark.peer
def test_an_object_of_transformers_and_its_state_are_enough():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(**{k: v for k, v in resnet().items() if k != "model_type"})
    theirs = transformers.ResNetForImageClassification(config).eval()
    net = AutoBackbone.from_state_dict(config, theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.resnet(x).last_hidden_state
    torch.testing.assert_close(net(x).feature_maps[-1], expected, atol=1e-5, rtol=1e-4)


VIT3 = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
IN_MEMORY = {
    "swin": ("SwinConfig", "SwinBackbone", WINDOWS),
    "dinov2": ("Dinov2Config", "Dinov2Backbone", VIT),
    "dinov2, gated": ("Dinov2Config", "Dinov2Backbone", {**VIT, "use_swiglu_ffn": True}),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersBackbone", VIT),
    "dinov2_with_registers, gated": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersBackbone",
        {**VIT, "use_swiglu_ffn": True},
    ),
    "dinov3_vit": ("DINOv3ViTConfig", "DINOv3ViTBackbone", VIT3),
    "dinov3_vit, gated": ("DINOv3ViTConfig", "DINOv3ViTBackbone", {**VIT3, "use_gated_mlp": True, "key_bias": True}),
    "pixio": ("PixioConfig", "PixioBackbone", VIT),
    "beit": ("BeitConfig", "BeitBackbone", {**VIT, "intermediate_size": 64, "use_relative_position_bias": True}),
    "beit, one table": ("BeitConfig", "BeitBackbone", {**VIT, "use_shared_relative_position_bias": True}),
    "swinv2": ("Swinv2Config", "Swinv2Backbone", WINDOWS),
    "vitdet": ("VitDetConfig", "VitDetBackbone", {**VIT, "pretrain_image_size": 32}),
}


@pytest.mark.peer
@pytest.mark.parametrize(("config", "network", "fields"), IN_MEMORY.values(), ids=IN_MEMORY.keys())
def test_names_that_transformers_gives_in_memory_alone_are_read(config, network, fields):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, config)(**fields, out_indices=[1, 2])
    theirs = getattr(transformers, network)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    net = AutoBackbone.from_state_dict(config, theirs)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for one, other in zip(net(x).feature_maps, theirs(x).feature_maps, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def without(state, name):
    return {key: x for key, x in state.items() if key != name}


def test_what_does_not_fit_is_one_error_that_lists_all():
    state = AutoBackbone.from_config(resnet()).state_dict()
    first = next(iter(state))
    for changed in (without(state, first), {**state, "more": torch.zeros(3)}, {**state, first: torch.zeros(2, 2)}):
        with pytest.raises(ValueError, match=r"state: .*resnet"):
            AutoBackbone.from_state_dict(resnet(), changed)


REFUSED = {
    "a list": ([1, 2], "state: a list must be a mapping from names to tensors, or a module"),
    "no tensors": ({"a": 1}, "state: must hold a plain mapping from names to tensors"),
    "empty": ({}, "state: must hold a plain mapping"),
}


@pytest.mark.parametrize(("state", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_state_is_refused(state, text):
    with pytest.raises(ValueError, match=text):
        AutoBackbone.from_state_dict(resnet(), state)


def test_a_name_of_no_kind_and_an_unknown_field_are_refused():
    with pytest.raises(ValueError, match=r"config='resnet18' must be a config, .*'timm/resnet18'; a folder or an id"):
        AutoBackbone.from_state_dict("resnet18", {})
    with pytest.raises(ValueError, match="did you mean 'out_indices'"):
        AutoBackbone.from_state_dict(resnet(), AutoBackbone.from_config(resnet()), out_indicez=[1])
    twice = {
        f"{p}.{k}": x for p in ("one", "other") for k, x in AutoBackbone.from_config(resnet()).state_dict().items()
    }
    with pytest.raises(ValueError, match=r"holds the network several times.*choose one: \{name: x for"):
        AutoBackbone.from_state_dict(resnet(), twice)
