"""What a network costs, against numbers that everybody knows."""

import os
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bbframe.experiment.profile import count_parameters, gmacs, peak_memory_bytes, reset_peak_memory


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
