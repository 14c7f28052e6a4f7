"""What a network costs, against numbers that everybody knows."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bbframe.auto import AutoBackbone
from bbframe.report.profile import (
    count_parameters,
    forward_memory_bytes,
    forward_seconds,
    gmacs,
    latency,
    peak_memory_bytes,
    reset_peak_memory,
    stage_gmacs,
)
from tests.tiny import example, names, tiny


@pytest.mark.long
@pytest.mark.parametrize(
    ("build", "parameters", "cost"),
    [(torchvision.models.resnet50, 25_557_032, 4.09), (torchvision.models.vit_b_16, 86_567_656, 17.56)],
)
def test_published_numbers(build, parameters, cost):
    net = build()
    assert count_parameters(net) == parameters
    assert gmacs(net, (3, 224, 224)) == pytest.approx(cost, abs=0.01)


class Attention(nn.Module):
    """64 tokens of 4 heads with 16 channels, whatever the image."""

    def forward(self, x):
        tokens = x.reshape(1, 4, 64, 16)
        return scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_counts_both_of_its_products():
    assert gmacs(Attention(), (1, 64, 64)) == pytest.approx(2 * 4 * 64 * 64 * 16 / 1e9)


def test_a_rectangular_image_and_strange_channels():
    assert gmacs(nn.Conv2d(5, 7, 3, padding=1), (5, 12, 20)) == pytest.approx(12 * 20 * 5 * 7 * 9 / 1e9)


@pytest.mark.parametrize("name", names())
def test_a_stage_costs_what_a_network_that_ends_with_it_costs_more(name):
    last = len(tiny(name).stage_names) - 1
    image = example(tiny(name), batch=1)
    totals = [0.0, *(gmacs(tiny(name, out_indices=[i]), tuple(image.shape[1:])) for i in range(last + 1))]
    steps = [total - before for before, total in pairwise(totals)]
    net = tiny(name, out_indices=[last])
    assert stage_gmacs(net, image) == pytest.approx(steps, rel=1e-6, abs=1e-12)
    assert not [module for module in net.modules() if module._forward_hooks or module._forward_pre_hooks]


@pytest.mark.long
def test_a_stage_of_timm_costs_what_the_same_stage_of_ours_does():
    image = torch.zeros(1, 3, 64, 96)
    timm = AutoBackbone.from_config({"model_type": "timm_backbone", "backbone": "resnet50"})
    ours = AutoBackbone.from_config({"model_type": "resnet", "depths": [3, 4, 6, 3]})
    assert stage_gmacs(timm, image) == pytest.approx(stage_gmacs(ours, image))


def test_the_network_is_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 1))
    net.train()
    net[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fused = torch.backends.mha.get_fastpath_enabled()
    gmacs(net, (3, 16, 24))
    assert [child.training for child in net] == [True, False, True, True]
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())
    assert torch.backends.mha.get_fastpath_enabled() is fused


def test_the_network_is_as_it_was_after_an_error():
    net = nn.Conv2d(3, 4, 3).train()
    with pytest.raises(RuntimeError):
        gmacs(net, (1, 16, 16))
    assert net.training


def test_a_shared_parameter_counts_once():
    layer = nn.Linear(10, 10, bias=False)
    assert count_parameters(nn.Sequential(layer, layer)) == 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is the GPU's memory there")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says it in a second place")
def test_peak_memory_is_what_the_system_says():
    kib = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]
    assert peak_memory_bytes() == pytest.approx(int(kib) * 1024, rel=0.05)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system keeps no peak to reset")
def test_an_earlier_peak_is_forgotten():
    block = torch.ones(100, 2**20)  # 400 MiB
    high = peak_memory_bytes()
    del block
    reset_peak_memory()
    assert peak_memory_bytes() < high - 200 * 2**20


def test_memory_is_what_tensors_occupy_at_once():
    """Of a chain of operations an input and an output live at a time, beside the image and the weights."""
    image = torch.zeros(1, 8, 64, 64)
    chain = nn.Sequential(*[nn.Sigmoid() for _ in range(4)])
    assert forward_memory_bytes(chain, image) == 3 * image.nbytes
    views = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 64, 64)), nn.ReLU(inplace=True))
    assert forward_memory_bytes(views, image) == image.nbytes
    layer = nn.Conv2d(8, 8, 1)
    layer.register_buffer("spare", torch.zeros(100))
    weights = sum(tensor.nbytes for tensor in (layer.weight, layer.bias, layer.spare))
    assert forward_memory_bytes(layer, image) == 2 * image.nbytes + weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_on_a_gpu_holds_the_tensors():
    net, image = tiny("resnet").cuda().eval(), example(tiny("resnet"), batch=1).cuda()
    assert forward_memory_bytes(net, image) >= sum(t.nbytes for t in [*net.parameters(), image])


def test_time_is_measured_several_times_but_not_for_ever():
    calls = []
    net = nn.Identity()
    net.register_forward_hook(lambda *_: calls.append(1))
    assert len(forward_seconds(net, torch.zeros(1))) == 50 == len(calls) - 1
    assert len(forward_seconds(net, torch.zeros(1), patience=0)) == 3


def test_latency_is_measured_in_eval_mode_and_leaves_the_network_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seconds = latency(net, (3, 16, 16), torch.device("cpu"), patience=0.01)
    assert 0 < seconds < 1
    assert [part.training for part in net] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
