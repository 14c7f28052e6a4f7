"""What RT-DETR's ResNet alone promises."""

from __future__ import annotations

import pytest
import torch

import bbframe
from bbframe import AutoBackbone
from tests.tiny import distance, images, shaken, tiny

CONFIG = {"model_type": "rt_detr_resnet"}
BASIC = {**CONFIG, "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}


@pytest.mark.long
def test_timms_resnet50d_is_the_same_network(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = shaken(timm.create_model("resnet50d"))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=CONFIG, out_indices=[1, 2, 3, 4])
    assert set(ours.load_report.ignored) == {"fc.weight", "fc.bias"}
    x = torch.randn(1, 3, 75, 53)
    with torch.no_grad():
        wanted = theirs.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
        for a, b in zip(ours(x).feature_maps, wanted, strict=True):
            assert distance(a, b) < 1e-5


def test_timms_resnet18d_is_another_network(tmp_path):
    """It has no convolution in the shortcut of the first block."""
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet18d").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"(?s)5 missing, 0 unexpected.*missing: layer1\.0\.downsample\.1\.weight"):
        AutoBackbone.from_pretrained(tmp_path / "w.pth", config=BASIC)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("inside", ["", "backbone."])
def test_the_authors_files_are_read_by_their_names(layer_type, inside, tmp_path):
    """The backbone's file is bare; the detector's holds an average of the weights too, which counts."""
    net = shaken(tiny("rt_detr_resnet", layer_type=layer_type))
    theirs, _ = net.originals
    tensors = {inside + theirs.theirs(key)[0]: value for key, value in net.state_dict().items()}
    assert inside + "res_layers.1.blocks.0.short.conv.conv.weight" in tensors
    assert inside + "conv1.conv1_3.norm.running_var" in tensors
    whole = tensors
    if inside:
        tensors |= {
            "encoder.input_proj.0.0.weight": torch.ones(3),
            "decoder.denoising_class_embed.weight": torch.ones(3),
        }
        whole = {"model": {key: value + 1 for key, value in tensors.items()}, "ema": {"module": tensors}}
    torch.save(whole, tmp_path / "w.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())


def test_shortcuts_average_what_they_halve():
    net = tiny("rt_detr_resnet", layer_type="bottleneck", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32])
    shortcuts = [stage.blocks[0].shortcut for stage in net.stages]
    assert isinstance(shortcuts[0], torch.nn.Identity)  # a first stage that changes nothing
    assert all(isinstance(shortcut[0], torch.nn.AvgPool2d) for shortcut in shortcuts[1:])
    x = torch.randn(1, 8, 5, 7)
    assert shortcuts[1](x).shape == (1, 16, 3, 4)  # as many places as the convolutions leave


def test_a_basic_block_that_keeps_the_channels_does_not():
    net = tiny("rt_detr_resnet", layer_type="basic", embedding_size=8, hidden_sizes=[8, 16, 16, 32])
    first, second, third, _ = (stage.blocks[0].shortcut for stage in net.stages)
    assert (first.conv.stride, third.conv.stride) == ((1, 1), (2, 2))
    assert isinstance(second[0], torch.nn.AvgPool2d)


def test_a_first_stage_of_other_channels_keeps_its_size():
    """transformers averages the shortcut alone there, and cannot add the two."""
    net = tiny("rt_detr_resnet", layer_type="basic", embedding_size=12, hidden_sizes=[8, 16, 24, 32])
    assert [m.shape[-1] for m in net(images(net, 64, 64)).feature_maps] == [16, 16, 8, 4, 2]


def test_the_stem_has_two_channels_at_least():
    with pytest.raises(ValueError, match=r"rt_detr_resnet: embedding_size=1 must be an integer within 2\.\."):
        bbframe.RTDetrResNetConfig(embedding_size=1)
