"""Conversion: the same maps and gradients, and whoever looks on sees plain PyTorch."""

from __future__ import annotations

import abc
import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bbframe
from bbframe import AutoBackbone
from bbframe.fast import convert, plain, probe
from bbframe.fast.converter import FORWARDS, _lay_kernels
from bbframe.layers.convolution import ConvNorm
from bbframe.layers.recompute import Recomputed
from tests.fast.conftest import needs_onednn
from tests.own import OwnBackbone, OwnConfig
from tests.tiny import distance, images, names, nothing_random, shaken, tiny, tiny_config

PACKAGE = Path(bbframe.__file__).parent
every_backbone = pytest.mark.parametrize("name", names())
pytestmark = [needs_onednn, pytest.mark.usefixtures("faster", "small_pieces")]


def pair(name):
    """A converted backbone and a plain one with the same weights."""
    net = shaken(tiny(name, **nothing_random(name)))
    return convert(net), plain(copy.deepcopy(net))


def maps(net, x):
    return net(x).feature_maps


def assert_same_maps(net, other, x, tolerance=1e-5):
    with torch.no_grad():
        for a, b in zip(maps(net, x), maps(other, x), strict=True):
            assert distance(a.float(), b.float()) <= tolerance


def converted(net):
    return [name for name, module in net.named_modules() if "forward" in vars(module)]


def gradients(net, x):
    x = x.clone().requires_grad_()
    net.zero_grad()
    sum(m.float().sin().sum() for m in maps(net, x)).backward()
    return [x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


@every_backbone
def test_maps_and_gradients_are_those_of_the_plain_network(name):
    net, other = pair(name)
    x = images(net, 64, 96, batch=5)
    assert converted(net)
    assert not converted(other)
    assert {type(m) for m in net.modules()} == {type(m) for m in other.modules()}
    assert list(net.state_dict()) == list(other.state_dict())
    assert_same_maps(net, other, x)
    _lay_kernels(other, torch.channels_last)  # torch's batch norm sums such maps less exactly, in either network
    for a, b in zip(gradients(net.train(), x), gradients(other.train(), x), strict=True):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max() + 1e-6


@every_backbone
def test_what_is_undone_is_as_it_was(name):
    net, other = pair(name)
    parameters = dict(net.named_parameters())
    plain(net)
    assert not converted(net)
    assert all(p is parameters[key] for key, p in net.named_parameters())
    assert all(a.stride() == b.stride() for a, b in zip(net.parameters(), other.parameters(), strict=True))


@every_backbone
def test_every_hook_fires_as_often_as_in_the_plain_network_and_sees_the_same(name):
    net, other = pair(name)
    x, seen = images(net, 64, 96), []
    for of in (net, other):
        heard: list[tuple[str, torch.Tensor]] = []
        for key, module in of.named_modules():
            module.register_forward_hook(
                lambda m, given, out, key=key, heard=heard: (
                    heard.append((key, out)) if isinstance(out, torch.Tensor) else None
                )
            )
        with torch.no_grad():
            of(x)
        seen.append(heard)
    assert sorted(key for key, _ in seen[0]) == sorted(key for key, _ in seen[1])
    expected = dict(seen[1])
    for key, out in dict(seen[0]).items():
        assert torch.allclose(out, expected[key], rtol=1e-4, atol=1e-4), key


@every_backbone
def test_copies_compute_with_their_own_weights(name):
    net, other = pair(name)
    x = images(net, 64, 96)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    for each in copies:
        assert converted(each)
        assert_same_maps(each, other, x)


@every_backbone
def test_functional_calls_take_the_weights_that_they_are_given(name):
    net, other = pair(name)
    x = images(net, 64, 96)
    weights = {key: value.detach().clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        found = torch.func.functional_call(net, weights, (x,)).feature_maps
        for a, b in zip(found, maps(other, x), strict=True):
            assert distance(a, b) < 1e-5


@every_backbone
@pytest.mark.filterwarnings("ignore")  # tracers warn of every number that they keep
def test_tracing_with_gradients_on(name):
    net, other = pair(name)
    x = images(net, 64, 96)

    class Maps(nn.Module):  # a tracer takes no output that is None
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return maps(self.net, x)

    traced = torch.jit.trace(Maps(), (x,), check_trace=False)
    for a, b in zip(traced(x), maps(other, x), strict=True):
        assert distance(a, b) < 1e-5


@every_backbone
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_in_both_half_precisions(name, dtype):
    net, other = pair(name)
    x = images(net, 64, 96)
    with torch.autocast("cpu", dtype):
        assert_same_maps(net, other, x, tolerance=0.05)
        gradients(net.train(), x)
    assert all(p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


@every_backbone
def test_a_network_in_bfloat16(name):
    net, other = pair(name)
    x = images(net, 64, 96).bfloat16()
    assert_same_maps(net.bfloat16(), other.bfloat16(), x, tolerance=0.05)
    gradients(net.train(), x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_quantisers_find_the_linear_layers():
    net, _ = pair("swin")
    quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    kinds = [type(module).__module__ for module in quantised.modules()]
    assert sum("quantized" in kind for kind in kinds) >= 8
    x = images(net, 64, 96)
    assert_same_maps(quantised, net, x, tolerance=0.2)
    with torch.no_grad():
        assert any(not torch.equal(a, b) for a, b in zip(maps(quantised, x), maps(net, x), strict=True))


class Weight(torch.Tensor):
    """A weight that counts the linear layers that it meets."""

    seen = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen += func is torch.nn.functional.linear
        return super().__torch_function__(func, types, args, kwargs or {})


def test_weights_that_are_tensor_subclasses_see_linear_layers():
    net, other = pair("swin")
    mlp = net.stages[0].blocks[0].mlp
    mlp.fc1.weight = nn.Parameter(mlp.fc1.weight.detach().as_subclass(Weight))
    assert_same_maps(net, other, images(net, 64, 96))
    assert Weight.seen > 0


class Centred(nn.Module):
    """A stage of a user's own, whose norm takes the batch's statistics in evaluation too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)


def test_a_stage_that_needs_the_whole_batch_gets_it():
    net = OwnBackbone(OwnConfig(width=4, out_features=["stem", "stage1"]))
    net.stages[0] = Centred()
    swin, other = pair("swin")
    for each in (swin, other):
        torch.manual_seed(0)
        each.stages[0].blocks[0].norm1 = nn.Sequential(each.stages[0].blocks[0].norm1, BatchMean())
    assert_same_maps(convert(net.eval()), plain(copy.deepcopy(net)), images(net, 32, 32, batch=8))
    assert_same_maps(convert(swin), other, images(swin, 64, 96, batch=5))


class BatchMean(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


def test_hooks_on_a_residual_network_see_what_they_should():
    net, _ = pair("resnet")
    fired, minima = [], []
    for module in net.modules():
        if type(module) is nn.ReLU:
            module.register_forward_hook(lambda *_: fired.append(1))
        if isinstance(module, ConvNorm):
            module.norm.register_forward_hook(lambda m, given, out: minima.append(out))
    for x in (images(net, 64, 96), images(net, 64, 96).requires_grad_()):
        net(x)
    assert fired
    assert all(out.min() < 0 for out in minima)


def test_a_class_built_by_hand_is_plain_until_asked_and_fast_may_be_refused():
    config = tiny_config("swin")
    assert not converted(bbframe.SwinBackbone(config))
    assert not converted(AutoBackbone.from_config(config, fast=False))
    assert converted(AutoBackbone.from_config(config))


def test_a_checkpoint_is_loaded_plain_when_asked(tmp_path):
    tiny("resnet").save_pretrained(tmp_path)
    assert converted(AutoBackbone.from_pretrained(tmp_path))
    assert not converted(AutoBackbone.from_pretrained(tmp_path, fast=False))


def test_a_network_that_leaves_the_cpu_is_plain_until_it_is_back():
    net, other = pair("resnet")
    assert not converted(net.to("meta"))
    net.to_empty(device="cpu").load_state_dict(other.state_dict())
    assert converted(net)
    assert_same_maps(net, other, images(net, 64, 96))


def test_an_abstract_backbone_may_be_declared():
    class Abstract(OwnBackbone, abc.ABC):
        pass

    net = Abstract(OwnConfig())
    assert len(convert(net)(torch.zeros(1, 3, 16, 16)).feature_maps) == len(net.out_features)


@pytest.mark.parametrize("converted_first", [True, False])
def test_gradient_checkpointing_goes_before_or_behind(converted_first):
    net, other = pair("swin")
    x, expected = images(net, 64, 96), gradients(other.train(), images(net, 64, 96))
    if not converted_first:
        plain(net)
    net.train().gradient_checkpointing_enable()
    convert(net)
    for a, b in zip(gradients(net, x), expected, strict=True):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max() + 1e-6
    plain(net)
    assert all(isinstance(vars(m)["forward"], Recomputed) for m in net.modules() if "forward" in vars(m))
    for a, b in zip(gradients(net, x), expected, strict=True):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max() + 1e-6


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")  # a map is a view, of a plain network too
def test_sharding_and_its_hooks(tmp_path):
    net, other = pair("swin")
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for _, block in net.blocks():
            fully_shard(block, mesh=mesh)
        fully_shard(net, mesh=mesh)
        assert_same_maps(net, other, images(net, 64, 96, batch=5))
        sum(m.sum() for m in maps(net.train(), images(net, 64, 96))).backward()
    finally:
        torch.distributed.destroy_process_group()


def test_every_class_that_is_swapped_exists():
    for name in FORWARDS:
        module, _, kind = name.rpartition(".")
        __import__(module)
        assert issubclass(getattr(sys.modules[module], kind), nn.Module)


def run(code, **environment):
    """The last line that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
        env={**os.environ, **environment},
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.long
def test_the_environment_turns_all_of_it_off():
    code = "from tests.tiny import tiny\nprint(any('forward' in vars(m) for m in tiny('swin').modules()))"
    assert run(code, BBFRAME_FAST="0") == "False"
    assert run(code) == "True"


@pytest.mark.slow
def test_a_processor_without_half_precision_products():
    code = """
import copy, torch
from bbframe.fast import convert, plain, probe
from tests.tiny import distance, images, tiny
probe.FASTER = True
for name in ("swin", "resnet"):
    net = convert(tiny(name)).eval()
    x, other = images(net, 64, 96), plain(copy.deepcopy(net))
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(net(x).feature_maps, other(x).feature_maps):
            assert distance(a.float(), b.float()) < 0.1
        with torch.no_grad():
            net(x)
        sum(m.float().sum() for m in net.train()(x).feature_maps).backward()
print(probe.works("product", torch.float32), probe.works("product", torch.bfloat16))
"""
    assert run(code, ONEDNN_MAX_CPU_ISA="AVX2") == "True False"


def test_an_operation_that_raises_or_errs_is_not_used(monkeypatch):
    for replacement in (None, lambda *a: torch.zeros(2, 24, 48)):
        monkeypatch.setattr(probe, "_works", {})
        monkeypatch.setattr(probe, "LINEAR", replacement)
        assert not probe.works("product", torch.float32)


def test_layers_and_models_say_nothing_of_processors():
    words = ("onednn", "mkldnn", "mkl", "amd", "zen ", "intel", "cpuinfo", "millisecond", " ms ")
    for path in [*(PACKAGE / "layers").glob("*.py"), *(PACKAGE / "models").glob("*.py")]:
        text = path.read_text().lower()
        assert not [word for word in words if word in text], path
