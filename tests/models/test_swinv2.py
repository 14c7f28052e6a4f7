"""What Swin V2 promises beyond the contract."""

import math

import pytest
import torch
from torch import nn

from bbframe import Swinv2Backbone, Swinv2Config
from bbframe.models.swinv2 import log_offsets
from tests.tiny import images, tiny


def lively(**fields):
    """A small network whose blocks are not the identity, as they are when training begins."""
    net = tiny("swinv2", **fields)
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    return net.eval()


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("swinv2", window_size=4).eval()
    with torch.no_grad():
        out = net(images(net, 40, 64), output_hidden_states=True, output_attentions=True)
    assert [tuple(s.shape[1:]) for s in out.hidden_states] == [
        (10, 16, 8), (10, 16, 8), (5, 8, 16), (3, 4, 32), (2, 2, 64),
    ]  # fmt: skip
    assert [tuple(a.shape[1:]) for a in out.attentions] == [
        (12, 2, 16, 16), (12, 2, 16, 16), (4, 2, 16, 16), (1, 4, 16, 16), (1, 4, 16, 16), (1, 4, 4, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        (256, [(16, 8), (16, 8), (16, 0), (8, 0)]),
        (384, [(16, 8), (16, 8), (16, 8), (12, 0)]),
        (16, [(4, 0), (2, 0), (1, 0), (1, 0)]),
        ([64, 256], [(16, 0), (8, 0), (4, 0), (2, 0)]),
    ],
)
def test_windows_are_no_larger_than_the_maps_in_training(image_size, expected):
    config = Swinv2Config(image_size=image_size, window_size=16)
    assert [config.window(level) for level in range(4)] == expected
    net = lively(image_size=image_size, window_size=16, depths=[2, 2, 2, 2], pretrained_window_sizes=[0, 1, 12, 6])
    with torch.no_grad():
        for height, width in ((64, 256), (75, 53)):
            assert all(m.isfinite().all() for m in net(images(net, height, width)).feature_maps)


def test_offsets_are_counted_in_windows_of_the_training_before():
    offsets = log_offsets(4, 4, torch.device("cpu"))
    assert offsets.shape == (49, 2)
    torch.testing.assert_close(offsets[0], torch.full((2,), -math.log2(9) / 3))
    torch.testing.assert_close(offsets[24], torch.zeros(2))
    torch.testing.assert_close(offsets[26], torch.tensor([0.0, math.log2(1 + 16 / 3) / 3]))
    wider = log_offsets(7, 4, torch.device("cpu")).view(13, 13, 2)
    torch.testing.assert_close(wider[3:10, 3:10], offsets.view(7, 7, 2))


def test_an_offset_is_biased_alike_in_windows_of_every_size():
    """The biases come from a function of the offset, so that weights of one window size serve in another."""
    small, large = (lively(window_size=size, pretrained_window_sizes=[4, 4, 4, 2]) for size in (4, 8))
    large.load_state_dict(small.state_dict())
    tables = []
    for net, size in ((small, 4), (large, 8)):
        every = torch.arange((2 * size - 1) ** 2).view(2 * size - 1, -1)
        biases = net.stages[0].blocks[0].position_mlp(log_offsets(size, 4, every.device))
        tables.append(biases[every].permute(2, 0, 1))
    torch.testing.assert_close(tables[1][:, 4:11, 4:11], tables[0])


def test_the_scale_of_the_cosines_is_at_most_a_hundred():
    net = lively(out_features=["stage1"])
    x = images(net, 32, 48)
    scales = [block.attn.logit_scale for block in net.stages[0].blocks]
    maps = []
    for value in (math.log(100), 6.0, 50.0):
        for scale in scales:
            nn.init.constant_(scale, value)
        maps.append(net(x).feature_maps[0])
    torch.testing.assert_close(maps[1], maps[0])
    torch.testing.assert_close(maps[2], maps[0])


def test_what_was_rolled_in_from_the_other_end_is_not_seen_even_at_the_largest_scale():
    """Cosines of -1 and 1 lie 200 apart there, further than the mask of Swin."""
    net = lively(out_features=["stage1"], embed_dim=2, num_heads=[1, 1, 1, 1], window_size=4, depths=[2, 1, 1, 1])
    for block in net.stages[0].blocks:
        nn.init.constant_(block.attn.logit_scale, math.log(100))
    with torch.no_grad():
        attentions = net(images(net, 32, 32, batch=8), output_attentions=True).attentions
    last = attentions[1][:, -1, 0].unflatten(1, (2, 2, 2, 2)).unflatten(-1, (2, 2, 2, 2))
    assert last[:, 0, :, :, :, 1].max() < 1e-6  # from the rows above to those rolled in from the top
    assert last[:, :, :, 1, :, :, :, 0].max() < 1e-6


def test_there_is_no_bias_of_keys_and_without_qkv_bias_of_nothing():
    names = [key for key, _ in tiny("swinv2").named_parameters() if "qkv" in key and "bias" in key]
    assert {name.rpartition(".")[2] for name in names} == {"q_bias", "v_bias"}
    assert not [key for key, _ in tiny("swinv2", qkv_bias=False).named_parameters() if "qkv" in key and "bias" in key]


def test_a_block_is_the_identity_when_training_begins():
    net = tiny("swinv2").eval()
    out = net(images(net, 64, 64), output_hidden_states=True)
    assert isinstance(net, Swinv2Backbone)
    assert torch.equal(out.hidden_states[0], out.hidden_states[1])
