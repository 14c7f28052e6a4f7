"""What every backbone keeps, whatever its architecture: declared maps, selection, pruning, gradients, compilation."""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bbframe
from bbframe.backbone_mixin import BackboneOutput, BackboneType

from .tiny import (
    cases,
    distance,
    example,
    golden_config,
    images,
    names,
    nothing_random,
    tiny,
    tiny_config,
    variants,
)

every_case = pytest.mark.parametrize("case", cases())
every_name = pytest.mark.parametrize("name", names())


def from_case(case):
    torch.manual_seed(0)
    return bbframe.AutoBackbone.from_config(golden_config(case)).eval()


# maps


@every_case
def test_maps_match_what_the_config_declares(case):
    net = from_case(case)
    x = example(net)
    with torch.no_grad():
        maps = net(x).feature_maps
    assert [tuple(m.shape) for m in maps] == [
        (2, c, x.shape[2] // s, x.shape[3] // s) for c, s in zip(net.channels, net.strides, strict=True)
    ]


@every_case
def test_odd_rectangles_give_maps_of_their_shape(case):
    net = from_case(case)
    with torch.no_grad():
        tall, wide = (net(images(net, *size)).feature_maps for size in ((75, 53), (53, 75)))
    for a, b, stride in zip(tall, wide, net.strides, strict=True):
        assert a.shape[2:] == b.shape[:1:-1]
        unit = max(stride, getattr(net.config, "patch_size", 1))  # maps finer than patches are made of whole ones
        for side, count in zip((75, 53), a.shape[2:], strict=True):
            assert side // unit * unit // stride <= count <= math.ceil(side / stride)


@every_name
def test_channels_and_strides_are_declared_truly_by_configs_of_any_values(name):
    """The stride is the exact ratio of growth: an odd image larger by the coarsest stride shows it in every map."""
    for config in variants(name, 8):
        torch.manual_seed(0)
        net = bbframe.AutoBackbone.from_config(config)
        top = max(stage.stride for stage in config.stages)
        sides = (2 * top + 1, top + top // 2)
        x = images(net, *sides)
        maps = net(x).feature_maps
        with torch.no_grad():
            larger = net(images(net, sides[0] + 2 * top, sides[1] + top)).feature_maps
        for a, b, channels, stride in zip(maps, larger, net.channels, net.strides, strict=True):
            assert a.shape[:2] == b.shape[:2] == (2, channels), config
            assert (b.shape[2] - a.shape[2], b.shape[3] - a.shape[3]) == (2 * top // stride, top // stride), config
            for side, count in zip(sides, a.shape[2:], strict=True):
                assert abs(count - side / stride) < 2, config
        sum(m.cos().sum() for m in maps).backward()
        for key, parameter in net.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (key, config)
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), (key, config)


@every_case
def test_images_smaller_and_larger_than_in_training(case):
    """From one cell of the coarsest map to several times the size that the config names, batch of one included."""
    net = from_case(case)
    top = max(stage.stride for stage in net.config.stages)
    sizes = [getattr(net.config, field, top) for field in ("image_size", "pretrain_image_size")]
    trained = max(max(size) if isinstance(size, tuple) else size for size in sizes)
    with torch.no_grad():
        for height, width in ((top, top), (top, 2 * trained + top), (trained + 1, trained // 2 + top)):
            x = images(net, height, width)
            for together, alone, stride in zip(net(x)[0], net(x[:1])[0], net.strides, strict=True):
                assert torch.isfinite(together).all()
                assert distance(together[:1], alone) < 1e-5
                for side, count in zip((height, width), together.shape[2:], strict=True):
                    assert abs(count - side / stride) < 2


@every_case
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 70), (70, 5)])
def test_images_smaller_than_any_cell_have_maps_too(case, size):
    """Where an architecture has none of them by itself, the maps are those of an image with zeros around it."""
    net = from_case(case)
    for training in (False, True):
        net.train(training).zero_grad()
        maps = net(images(net, *size)).feature_maps
        for m, stride in zip(maps, net.strides, strict=True):
            assert torch.isfinite(m).all()
            for side, count in zip(size, m.shape[2:], strict=True):
                assert max(1, side / stride - 2) <= count < side / stride + 2 or net.needs_a_cell
        sum(m.cos().sum() for m in maps).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    if net.needs_a_cell:
        x, cell = images(net, *size), max(net.config.strides)
        filled = x.new_zeros(*x.shape[:2], *(max(side, cell) for side in size))
        filled[:, :, : size[0], : size[1]] = x
        net.eval()
        with torch.no_grad():
            for a, b in zip(net(x).feature_maps, net(filled).feature_maps, strict=True):
                assert torch.equal(a, b)


@every_name
def test_a_map_lies_as_its_image_does(name):
    """A change in the lower left corner of a wide image shows in the lower left corner of every map."""
    net = tiny(name).eval()
    x = example(net)
    changed = x.clone()
    side = x.shape[2] // 2
    changed[:, :, -side:, :side] *= -3.0
    with torch.no_grad():
        before, after = net(x).feature_maps, net(changed).feature_maps
    for a, b in zip(before, after, strict=True):
        change = (a - b).abs().sum(dim=(0, 1))
        row, column = divmod(change.argmax().item(), change.shape[1])
        assert row >= change.shape[0] // 2
        assert column < change.shape[1] / 2


@every_name
def test_one_image_does_not_depend_on_the_others(name):
    net = tiny(name).eval()
    x = example(net, batch=3)
    with torch.no_grad():
        together = net(x).feature_maps
        alone = [net(x[i : i + 1]).feature_maps for i in range(3)]
    for level, m in enumerate(together):
        assert distance(m, torch.cat([maps[level] for maps in alone])) < 1e-5


@every_case
def test_half_precision_agrees_to_its_precision(case):
    """Under autocast, and with weights in half precision; what rounding the weights alone does is the measure."""
    net = from_case(case)
    x = images(net, 75, 107)
    half = copy.deepcopy(net).bfloat16()
    with torch.no_grad():
        exact = net(x).feature_maps
        rounded = copy.deepcopy(half).float()(x).feature_maps
        with torch.autocast("cpu", torch.bfloat16):
            autocast = net(x).feature_maps
        for a, b, c, d in zip(exact, rounded, autocast, half(x.bfloat16()).feature_maps, strict=True):
            allowed = max(0.015, 3 * ((b - a).norm() / a.norm()).item())
            assert d.dtype == torch.bfloat16
            for rough in (c, d):
                assert torch.isfinite(rough).all()
                assert ((rough.float() - a).norm() / a.norm()).item() < allowed


@every_name
def test_a_wrong_number_of_channels_is_named(name):
    net = tiny(name, num_channels=3)
    with pytest.raises(
        ValueError, match=r"pixel_values of shape \(2, 1, 32, 32\) must be \(batch, 3, height, width\)"
    ):
        net(torch.zeros(2, 1, 32, 32))


# what users of transformers rely on


@every_name
def test_attributes_are_those_of_transformers(name):
    net = tiny(name)
    assert net.backbone_type is BackboneType.TRANSFORMERS
    assert net.backbone_type.value == "transformers"
    for attribute in ("stage_names", "num_features", "out_features", "out_indices", "channels"):
        assert type(getattr(net, attribute)) is list
        assert getattr(net, attribute) == getattr(net.config, attribute)
    assert len(net.stage_names) == len(net.num_features) == len(net.out_feature_channels)
    assert net.out_feature_channels == dict(zip(net.stage_names, net.num_features, strict=True))
    assert len(net.channels) == len(net.out_features) == len(net.out_indices) == len(net.strides)
    assert next(iter(inspect.signature(net.forward).parameters)) == "pixel_values"
    assert net.stage_names[0] == "stem"


@every_name
def test_outputs_are_those_of_transformers(name):
    net = tiny(name).eval()
    x = example(net)
    with torch.no_grad():
        out = net(x)
        asked = net(x, output_hidden_states=True)
        filtered = net.forward_with_filtered_kwargs(x, output_hidden_states=False, return_dict=True, foo=1)
    assert isinstance(out, BackboneOutput)
    assert isinstance(out.feature_maps, tuple)
    assert out.hidden_states is None
    assert out.attentions is None
    assert out[0] is out.feature_maps
    assert len(asked.hidden_states) == net.num_built
    for a, b, c in zip(out.feature_maps, asked.feature_maps, filtered.feature_maps, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@every_name
def test_an_output_answers_to_names_as_a_tuple_does_to_positions(name):
    net = tiny(name).eval()
    x = example(net)
    with torch.no_grad():
        out = net(x)
        maps, states, attentions = net(x, output_hidden_states=True)
        plain = net(x, output_hidden_states=True, return_dict=False)
    assert out["feature_maps"] is out[0] is out.feature_maps
    assert (out.keys(), out.to_tuple()) == (["feature_maps"], (out.feature_maps,))
    assert "feature_maps" in out
    assert "hidden_states" not in out
    for key in ("hidden_states", "maps"):
        with pytest.raises(KeyError, match=key):
            out[key]
    assert attentions is None
    assert type(plain) is tuple
    assert len(plain) == 2
    for a, b in zip((*maps, *states), (*plain[0], *plain[1]), strict=True):
        assert torch.equal(a, b)


@every_name
def test_dtype_and_device_are_those_of_the_weights(name, tmp_path):
    config = tiny_config(name)
    net = bbframe.AutoBackbone.from_config(config)
    assert (net.dtype, net.device) == (torch.float32, torch.device("cpu"))
    net.save_pretrained(tmp_path)
    for given in ({"dtype": torch.bfloat16}, {"torch_dtype": "bfloat16"}, {"dtype": "torch.bfloat16"}):
        for half in (
            bbframe.AutoBackbone.from_config(config, **given),
            bbframe.AutoBackbone.from_pretrained(tmp_path, attn_implementation="sdpa", **given),
            type(net).from_pretrained(tmp_path, **given),
        ):
            assert half.dtype == torch.bfloat16
    assert net.to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dtype": "bfloat61"}, "dtype='bfloat61'; did you mean 'bfloat16'?"),
        ({"torch_dtype": torch.int8}, "dtype='int8'; choose from: bfloat16, float16, float32, float64"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation='flash_attention_2' cannot be chosen: "),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(given, text, tmp_path):
    tiny("resnet").save_pretrained(tmp_path)
    for make in (
        lambda: bbframe.AutoBackbone.from_config(tiny_config("resnet"), **given),
        lambda: bbframe.AutoBackbone.from_pretrained(tmp_path, **given),
        lambda: bbframe.ResNetBackbone.from_pretrained(tmp_path, **given),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            make()


ASKED = {
    "return_dict": (False, "net(images, return_dict=...)"),
    "output_attentions": (True, "net(images, output_attentions=...)"),
    "output_hidden_states": (True, "net(images, output_hidden_states=...)"),
    "output_loading_info": (True, "net.load_report"),
    "device_map": ("auto", "net.to('cuda')"),
    "use_safetensors": (False, "leave it out"),
    "ignore_mismatched_sizes": (True, "every tensor is accounted for"),
    "subfolder": ("nowhere", "give the folder itself"),
    "num_labels": (3, "a backbone has no labels"),
    "quantization_config": ({"load_in_8bit": True}, "quantise the network"),
    "variant": ("fp16", "give the path"),
}


@pytest.mark.parametrize("key", [*ASKED, "use_pretrained_backbone"])
def test_no_argument_of_from_pretrained_is_swallowed(key, tmp_path):
    tiny("resnet").save_pretrained(tmp_path)
    for load in (bbframe.AutoBackbone.from_pretrained, bbframe.ResNetBackbone.from_pretrained):
        value, instead = ASKED.get(key, (True, f"resnet: unknown option '{key}'"))
        with pytest.raises(ValueError, match=re.escape(instead)) as error:
            load(tmp_path, **{key: value})
        assert key in str(error.value)
        assert "\n" not in str(error.value)


def test_arguments_that_ask_for_nothing_are_taken(tmp_path):
    net = tiny("resnet").eval()
    net.save_pretrained(tmp_path / "inside", safe_serialization=True, max_shard_size="5GB", push_to_hub=False)
    nothing = {"trust_remote_code": True, "low_cpu_mem_usage": True, "device_map": "cpu", "proxies": {}}
    nothing |= {"output_loading_info": False, "output_hidden_states": False, "return_dict": True, "num_labels": None}
    again = bbframe.AutoBackbone.from_pretrained(tmp_path, subfolder="inside", revision="main", **nothing)
    for name, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert bbframe.AutoBackbone.from_config(net.config, trust_remote_code=False).channels == net.channels


@pytest.mark.parametrize(
    "options", [{"safe_serialization": False}, {"push_to_hub": True}, {"state_dict": {}}, {"x": 1}]
)
def test_no_argument_of_save_pretrained_is_swallowed(options, tmp_path):
    with pytest.raises(ValueError, match=rf"save_pretrained: .*{next(iter(options))}"):
        tiny("resnet").save_pretrained(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@every_name
def test_fields_given_to_from_config_replace_those_of_the_config(name):
    config = tiny_config(name)
    for given in (config, config.to_dict(), SimpleNamespace(model_type=config.model_type, to_dict=config.to_dict)):
        net = bbframe.AutoBackbone.from_config(given, out_indices=[-1])
        assert net.out_features == config.stage_names[-1:]
    assert config.out_features != config.stage_names[-1:] or len(config.out_features) == 1
    with pytest.raises(ValueError, match="unknown option 'out_indicez'"):
        bbframe.AutoBackbone.from_config(config, out_indicez=[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_auto_is_that_of_the_checkpoint(dtype, tmp_path):
    tiny("resnet").to(dtype).save_pretrained(tmp_path)
    assert bbframe.AutoBackbone.from_pretrained(tmp_path, torch_dtype="auto").dtype == dtype
    assert bbframe.AutoBackbone.from_pretrained(tmp_path).dtype == torch.float32
    with pytest.raises(ValueError, match="dtype=float32 contradicts torch_dtype=float16; give one of them"):
        bbframe.AutoBackbone.from_pretrained(tmp_path, dtype="float32", torch_dtype="float16")


@pytest.mark.parametrize("checkpoint", [None, b"x", 3, ["a"]])
def test_a_checkpoint_is_named_by_a_text_or_a_path(checkpoint):
    with pytest.raises(ValueError, match="must be an id on the Hub, a folder or a weights file"):
        bbframe.AutoBackbone.from_pretrained(checkpoint)


@every_name
def test_an_output_and_a_network_have_the_ways_of_transformers(name, tmp_path):
    net = tiny(name)
    out = net(example(net), output_hidden_states=True)
    assert out[-1] is out.values()[-1] is out.hidden_states
    assert [key for key, _ in out.items()] == ["feature_maps", "hidden_states"]
    assert (out.get("feature_maps"), out.get("attentions", 3)) == (out.feature_maps, 3)
    assert out[:1] == (out.feature_maps,)
    assert net.main_input_name == "pixel_values"
    assert net.num_parameters() == sum(p.numel() for p in net.parameters())
    next(net.parameters()).requires_grad_(False)
    assert net.num_parameters(only_trainable=True) == sum(p.numel() for p in net.parameters() if p.requires_grad)
    net.config.save_pretrained(tmp_path)
    assert bbframe.AutoBackbone.from_config(json.loads((tmp_path / "config.json").read_text())).config == net.config
    assert json.loads(net.config.to_json_string()) == json.loads((tmp_path / "config.json").read_text())


@every_name
def test_recomputation_is_switched_on_and_off(name):
    net = tiny(name).train()
    before = {module: vars(module).get("forward") for module in net.modules()}
    assert not net.is_gradient_checkpointing
    net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert net.is_gradient_checkpointing
    net.gradient_checkpointing_disable()
    net.gradient_checkpointing_disable()
    assert not net.is_gradient_checkpointing
    assert {module: vars(module).get("forward") for module in net.modules()} == before


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (np.zeros((1, 3, 64, 64), np.float32), "float32"),
        ({"pixel_values": torch.zeros(1, 3, 64, 64)}, "dict"),
    ],
)
def test_other_than_floating_pixels_are_refused(wrong, kind):
    way = f"pixel_values, which are {kind}, must be a tensor of floating-point numbers: net.preprocessing"
    with pytest.raises(ValueError, match=way):
        tiny("resnet")(wrong)


@every_name
def test_a_config_may_be_changed_before_the_backbone_is_made(name):
    config = tiny_config(name)
    last = config.num_features[-1]
    for field in ("out_features", "out_indices", "out_strides"):
        modified = copy.deepcopy(config)
        setattr(modified, field, None)
        modified.use_pretrained_backbone = False
        net = bbframe.AutoBackbone.from_config(modified)
        assert net.channels == [last]
        assert len(net(example(net)).feature_maps) == 1


# selection


@every_name
def test_names_indices_and_strides_determine_each_other(name):
    stages = tiny_config(name).stages
    for i, stage in enumerate(stages):
        by_name = tiny_config(name, out_features=[stage.name])
        by_index = tiny_config(name, out_indices=[i])
        from_the_end = tiny_config(name, out_indices=(i - len(stages),))
        for config in (by_name, by_index, from_the_end):
            assert config.out_features == [stage.name]
            assert (config.channels, config.strides) == ([stage.channels], [stage.stride])
        assert by_name.out_indices == by_index.out_indices == [i]
        assert from_the_end.out_indices == [i - len(stages)]
        assert by_name.out_strides == [stage.stride]
    last = {stage.stride: stage.name for stage in stages}
    by_stride = tiny_config(name, out_strides=list(last))
    assert by_stride.out_features == list(last.values())
    assert by_stride.strides == by_stride.out_strides == list(last)
    nothing = tiny_config(name, out_features=None)
    assert (nothing.out_features, nothing.out_indices) == ([stages[-1].name], [len(stages) - 1])


@every_name
def test_assignment_realigns_a_config_and_a_backbone(name):
    net = tiny(name)
    count = len(net.stage_names)
    for target in (net, tiny_config(name)):
        target.out_features = ["stem"]
        assert (target.out_indices, target.out_strides) == ([0], [net.config.stages[0].stride])
        target.out_indices = (-count, -1)
        assert target.out_indices == [-count, -1]
        assert target.out_features == ["stem", net.stage_names[-1]]
        target.out_strides = [net.config.stages[-1].stride]
        assert target.out_features == [net.stage_names[-1]]
        target.out_features = ("stem", net.stage_names[-1])
        assert target.out_indices == [0, count - 1]
        target.out_indices = None
        assert target.out_features == [net.stage_names[-1]]


@every_name
@pytest.mark.parametrize(
    ("field", "value"),
    [("out_features", ["stem", "stem"]), ("out_indices", [99]), ("out_strides", [3]), ("out_indices", 1)],
)
def test_a_refused_assignment_changes_nothing(name, field, value):
    net = tiny(name, out_indices=[0, 1])
    for target in (net, tiny_config(name, out_indices=[0, 1])):
        with pytest.raises(ValueError, match=f"{field}="):
            setattr(target, field, value)
        assert (target.out_features, target.out_indices) == (net.stage_names[:2], [0, 1])
        assert target.channels == net.num_features[:2]


@every_name
def test_returned_lists_are_the_callers_own(name):
    net = tiny(name)
    for owner in (net, net.config):
        for attribute in "out_features out_indices out_strides stage_names num_features channels strides".split():
            kept = list(getattr(owner, attribute))
            getattr(owner, attribute).clear()
            assert getattr(owner, attribute) == kept


@every_name
def test_backbones_of_one_config_do_not_interfere(name):
    config = tiny_config(name)
    kept = copy.deepcopy(config)
    one, two = (bbframe.AutoBackbone.from_config(config) for _ in range(2))
    one.out_indices = [0]
    assert two.out_features == config.out_features == kept.out_features
    assert config == kept
    config.out_indices = [1]
    assert one.out_indices == [0]
    assert two.out_features == kept.out_features


# stages after the last requested one


@every_name
def test_pruned_backbones_give_the_same_maps_and_train_all_they_have(name):
    whole = tiny(name).train()
    x = example(whole)
    torch.manual_seed(2)
    expected = dict(zip(whole.stage_names, whole.eval()(x).feature_maps, strict=True))
    for count, stage in enumerate(whole.stage_names, start=1):
        net = tiny(name, out_features=[stage]).eval()
        assert net.num_built == count
        weights = whole.state_dict()
        net.load_state_dict({key: weights[key] for key in net.state_dict()})
        (map_,) = net(x).feature_maps
        assert torch.equal(map_, expected[stage])
        net.train()(x).feature_maps[0].cos().sum().backward()
        for key, parameter in net.named_parameters():
            assert parameter.requires_grad or not key.startswith(("stem.", "stages."))
            if parameter.requires_grad:
                assert parameter.grad is not None, key
                assert torch.isfinite(parameter.grad).all(), key


@every_name
def test_a_built_stage_can_be_selected_later(name):
    net, last = tiny(name).eval(), tiny(name, out_indices=[-1]).eval()
    x = example(net)
    maps = net(x).feature_maps
    for stage, expected in zip(net.stage_names, maps, strict=True):
        last.out_features = [stage]
        assert torch.equal(last(x).feature_maps[0], expected)


@every_name
def test_an_unbuilt_stage_is_refused_by_name(name):
    net = tiny(name, out_indices=[0, 1])
    names_, end = net.stage_names, net.stage_names[-1]
    for field, value in (("out_features", [end]), ("out_indices", [-1]), ("out_features", None)):
        with pytest.raises(ValueError, match=f"{end} was not built") as error:
            setattr(net, field, value)
        assert f"ends at {names_[1]}" in str(error.value)
        assert f"make a new one with out_features={[end]}" in str(error.value)
        assert net.out_features == names_[:2]


@every_name
def test_only_what_serves_the_maps_that_are_read_trains(name):
    net = tiny(name)
    net.use_maps(net.out_features[-1:])
    net(example(net)).feature_maps[-1].cos().sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    net.use_maps(net.out_features)
    assert all(p.requires_grad for key, p in net.named_parameters() if key.startswith("norms."))
    net.out_features = net.out_features[-1:]
    net.zero_grad()
    net(example(net)).feature_maps[0].cos().sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


# attention maps


@every_name
def test_attentions_come_on_request(name):
    net = tiny(name).eval()
    x = example(net)
    if not net.has_attentions:
        with pytest.raises(ValueError, match=f"{net.config.model_type} has no attention maps"):
            net(x, output_attentions=True)
        assert net.forward_with_filtered_kwargs(x, output_attentions=True).attentions is None
        return
    with torch.no_grad():
        plain, asked = net(x), net(x, output_attentions=True)
    assert plain.attentions is None
    assert len(asked.attentions) == len(list(net.blocks()))
    for probabilities in asked.attentions:
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:-1]))
    for a, b in zip(plain.feature_maps, asked.feature_maps, strict=True):
        assert distance(a, b) < 1e-5


# training


@every_name
def test_recomputation_changes_neither_gradients_nor_statistics(name):
    kept, recomputed = tiny(name), tiny(name)
    recomputed.gradient_checkpointing_enable()
    recomputed.gradient_checkpointing_enable()  # once more is the same
    copied = copy.deepcopy(recomputed)
    for net in (kept, recomputed, copied):
        torch.manual_seed(3)  # of the dropped paths
        sum(m.cos().sum() for m in net.train()(example(net)).feature_maps).backward()
    for other in (recomputed, copied):
        for (key, a), (_, b) in zip(kept.named_parameters(), other.named_parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), key
            if a.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, msg=key)
        for (key, a), (_, b) in zip(kept.named_buffers(), other.named_buffers(), strict=True):
            torch.testing.assert_close(a, b, msg=key)


@every_name
def test_recomputation_saves_memory_for_every_block(name):
    """Between its input and its output a block keeps nothing."""

    def saved(net):
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(example(net))
        return count

    net = tiny(name).train()
    before = saved(net)
    net.gradient_checkpointing_enable()
    assert saved(net) < before


@every_name
def test_attentions_can_be_asked_for_while_activations_are_recomputed(name):
    net = tiny(name).train()
    net.gradient_checkpointing_enable()
    if net.has_attentions:
        out = net(example(net), output_attentions=True)
        assert len(out.attentions) == len(list(net.blocks()))
        out.feature_maps[-1].cos().sum().backward()


@every_name
def test_a_copy_is_independent(name):
    net = tiny(name).eval()
    other = copy.deepcopy(net)
    x = example(net)
    with torch.no_grad():
        before = [m.clone() for m in net(x).feature_maps]
        for parameter in other.parameters():
            parameter.zero_()
        other.out_indices = [0]
        for a, b in zip(net(x).feature_maps, before, strict=True):
            assert torch.equal(a, b)


@every_name
def test_every_parameter_has_a_stage_and_a_layer_that_rise_along_the_network(name):
    for selection in ([-1], [0]):
        net = tiny(name, out_indices=selection)
        stages, layers = net.parameter_stages(), net.parameter_layers()
        every = [key for key, _ in net.named_parameters()]
        assert list(stages) == list(layers) == every
        assert set(stages.values()) == set(range(net.num_built))
        assert set(layers.values()) == set(range(len(list(net.blocks())) + 1))
        for key in every:
            if key.startswith("stem."):
                assert stages[key] == layers[key] == 0
        trunk = [key for key in every if key.startswith(("stem.", "stages."))]
        for below in range(net.num_built - 1):
            top = max(layers[key] for key in trunk if stages[key] == below)
            assert all(layers[key] > top for key in trunk if stages[key] == below + 1)
        first: dict[int, int] = {}
        in_blocks: dict[int, int] = {}
        for depth, (stage, block) in enumerate(net.blocks(), start=1):
            first.setdefault(stage, depth)
            in_blocks.update({id(p): depth for p in block.parameters()})
        for key, parameter in net.named_parameters():
            if key.startswith("stages."):  # a downsampling goes with the first block behind it
                assert layers[key] == in_blocks.get(id(parameter), first[stages[key]])


# no tensor before its time


class _Made(TorchDispatchMode):
    """Notes the device of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.devices = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.devices |= {leaf.device.type for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)}
        return out


@every_name
def test_configs_make_no_tensor_and_the_meta_device_no_real_one(name):
    with _Made() as made:
        config = tiny_config(name)
    assert made.devices == set()
    with _Made() as made, torch.device("meta"):
        net = bbframe.AutoBackbone.from_config(config)
    assert made.devices == {"meta"}
    assert all(tensor.is_meta for tensor in (*net.parameters(), *net.buffers()))


@every_name
def test_building_is_a_function_of_the_seed(name):
    one, two = tiny(name).state_dict(), tiny(name).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    for module in tiny(name).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert module.weight.std() > 0


# compilation


@pytest.mark.slow
@every_name
@pytest.mark.parametrize("mode", ["eval", "train", "recomputed"])
def test_compiles_without_a_graph_break(name, mode):
    torch._dynamo.reset()
    net = tiny(name, **nothing_random(name)).train(mode != "eval")
    if mode == "recomputed":
        net.gradient_checkpointing_enable()
    x = example(net)
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager" if mode == "train" else "eager", fullgraph=True)
    out, expected = compiled(x, output_hidden_states=True), net(x, output_hidden_states=True)
    assert out.hidden_states is not None
    for a, b in zip(out.feature_maps, expected.feature_maps, strict=True):
        torch.testing.assert_close(a, b)
    if mode == "train":
        for maps in (out.feature_maps, expected.feature_maps):
            sum(m.cos().sum() for m in maps).backward()
        for (key, a), b in zip(compiled.named_parameters(), net.parameters(), strict=True):
            assert b.grad is None or torch.allclose(a.grad, b.grad, atol=1e-5 * b.grad.abs().max().item()), key
        for a, b in zip(compiled.buffers(), net.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.slow
@every_name
def test_another_size_does_not_compile_again(name):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    net = tiny(name, out_indices=[-1]).eval()
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    top = max(stage.stride for stage in net.config.stages)
    with torch.no_grad():
        for batch, height, width in ((2, 3 * top + 1, 5 * top), (4, 7 * top, 3 * top - 2), (5, 2 * top, 6 * top + 3)):
            x = images(net, height, width, batch)
            for a, b in zip(compiled(x).feature_maps, net(x).feature_maps, strict=True):
                torch.testing.assert_close(a, b)
    assert counter.frame_count == 1
