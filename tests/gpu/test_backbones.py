"""Every architecture on the device, against the CPU in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from bbframe import AutoBackbone
from bbframe.report.profile import forward_memory_bytes, forward_seconds, peak_memory_bytes, reset_peak_memory
from tests.tiny import distance, example, names, shaken, tiny

pytestmark = pytest.mark.gpu

FLOAT32, BF16 = 1e-4, 0.1


def weighted(maps):
    """A sum of the maps in which every value has its own weight, so that no gradient is zero by symmetry."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in maps]
    return sum((x * weight).sum() for x, weight in zip(maps, weights, strict=True))


def without_chance(net):
    """The network as it trains, less what it drops at random."""
    net.eval()
    for module in net.modules():
        module.train(isinstance(module, _BatchNorm))
    return net


def gradients(net, x):
    net.zero_grad()
    maps = net(x).feature_maps
    weighted(maps).backward()
    return [*maps, *(p.grad for p in net.parameters() if p.grad is not None)]


def assert_close(found, expected, tolerance):
    """Each tensor by its norm; a gradient of zeros counts against 1."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        assert (a - b).norm() <= tolerance * max(b.norm(), 1)


@pytest.mark.parametrize("name", names())
def test_maps_are_those_of_the_cpu(name, device):
    net = shaken(tiny(name))
    x = example(net)
    with torch.no_grad():
        expected = copy.deepcopy(net).double()(x.double()).feature_maps
        found = net.to(device)(x.to(device)).feature_maps
    assert all(y.device.type == device.type and y.dtype == torch.float32 for y in found)
    assert max(distance(a.cpu().double(), b) for a, b in zip(found, expected, strict=True)) < FLOAT32


@pytest.mark.parametrize("name", names())
def test_gradients_are_those_of_the_cpu(name, device):
    net = without_chance(tiny(name))
    x = example(net)
    expected = gradients(copy.deepcopy(net).double(), x.double())
    assert_close(gradients(net.to(device), x.to(device)), expected, 1e-3)


@pytest.mark.parametrize("name", names())
def test_bf16_autocast_is_near_float32(name, device):
    net = without_chance(tiny(name)).to(device)
    x = example(net).to(device)
    expected = net(x).feature_maps
    with torch.autocast(device.type, torch.bfloat16):
        found = net(x).feature_maps
    weighted(found).backward()
    assert_close(found, expected, BF16)
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", names())
def test_channels_last_images_and_weights_change_nothing(name, device):
    net = shaken(tiny(name)).to(device)
    x = example(net).to(device)
    with torch.no_grad():
        expected = net(x).feature_maps
        assert_close(net(x.contiguous(memory_format=torch.channels_last)).feature_maps, expected, FLOAT32)
        net.to(memory_format=torch.channels_last)
        assert_close(net(x.contiguous(memory_format=torch.channels_last)).feature_maps, expected, FLOAT32)


@pytest.mark.parametrize("name", names())
def test_activation_checkpointing_changes_no_gradient(name, device):
    net = tiny(name).to(device).train()
    x = example(net).to(device)
    expected = gradients(net, x)
    net = tiny(name).to(device).train()
    net.gradient_checkpointing_enable()
    assert_close(gradients(net, x), expected, FLOAT32)


@pytest.mark.parametrize("name", names())
def test_there_and_back_again_nothing_is_lost(name, device, tmp_path):
    net = shaken(tiny(name))
    x = example(net)
    with torch.no_grad():
        expected = net(x).feature_maps
        net.to(device).save_pretrained(tmp_path)
        again = AutoBackbone.from_pretrained(tmp_path)(x).feature_maps
        back = copy.deepcopy(net).to("cpu")(x).feature_maps
    for found in (again, back):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "swin"])
def test_compiled_in_one_piece(name, device):
    net = without_chance(tiny(name)).to(device)
    x = example(net).to(device)
    expected = gradients(net, x)
    backend = "inductor" if device.type == "cuda" else "aot_eager"  # a CPU takes a minute for the first
    net = without_chance(tiny(name)).to(device)
    net.compile(fullgraph=True, backend=backend)
    assert_close(gradients(net, x), expected, 1e-3)
    torch.compiler.reset()


def test_costs_are_measured_on_the_device(device):
    net = tiny("resnet").to(device).eval()
    x = example(net, batch=1).to(device)
    assert min(forward_seconds(net, x, patience=0.05)) > 0
    held = sum(p.numel() * p.element_size() for p in net.parameters())
    assert forward_memory_bytes(net, x) > held
    reset_peak_memory()
    kept = torch.ones(2**20, device=device)
    assert peak_memory_bytes() >= held + kept.numel() * kept.element_size()


def test_activation_checkpointing_takes_less_memory(device):
    if device.type != "cuda":
        pytest.skip("a CPU counts the memory of the whole process")
    peaks = []
    for checkpointing in (False, True):
        net = tiny("dinov2").to(device).train()
        if checkpointing:
            net.gradient_checkpointing_enable()
        x = torch.randn(8, 3, 448, 448, device=device)
        reset_peak_memory()
        gradients(net, x)
        peaks.append(peak_memory_bytes())
        del net, x
    assert peaks[1] < 0.7 * peaks[0]
