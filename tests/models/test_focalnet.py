"""What FocalNet alone promises."""

import pytest
import torch

from bbframe import AutoBackbone, FocalNetConfig
from tests.tiny import images, tiny


def maps(net, height, width, **options):
    with torch.no_grad():
        return net.eval()(images(net, height, width), **options)


@pytest.mark.parametrize("stated", [[5], [7, 7, 7, 7, 7], None])
def test_channels_are_those_of_the_maps_whatever_a_config_states(stated):
    data = {"model_type": "focalnet", "embed_dim": 8, "depths": [1, 1, 1], "hidden_sizes": stated}
    data |= {"focal_levels": [1, 2, 1], "focal_windows": [3, 1, 5], "out_features": ["stem", "stage1", "stage3"]}
    net = AutoBackbone.from_config(data)
    assert net.num_features == [8, 16, 32, 32]
    assert [m.shape[1] for m in maps(net, 64, 96).feature_maps] == net.channels == [8, 16, 32]
    assert net.config.hidden_sizes == (16, 32, 32)


@pytest.mark.parametrize(
    ("overlapping", "patch_size", "first"), [(False, 2, 2), (False, 4, 4), (True, 4, 4), (True, 2, 4)]
)
def test_strides_are_those_of_the_maps(overlapping, patch_size, first):
    net = tiny("focalnet", use_conv_embed=overlapping, patch_size=patch_size)
    assert net.strides == [first * k for k in (1, 2, 4, 8, 8)]
    assert [m.shape[2:] for m in maps(net, 64, 96).feature_maps] == [(64 // s, 96 // s) for s in net.strides]


@pytest.mark.parametrize("overlapping", [False, True])
def test_odd_sides_are_filled_up(overlapping):
    net = tiny("focalnet", use_conv_embed=overlapping)
    assert [m.shape[2:] for m in maps(net, 75, 53).feature_maps] == [(-(-75 // s), -(-53 // s)) for s in net.strides]


def test_hidden_states_have_the_documented_layout():
    net = tiny("focalnet")
    out = maps(net, 64, 96, output_hidden_states=True)
    for state, map_ in zip(out.hidden_states, out.feature_maps, strict=True):
        assert torch.equal(state, map_)


def test_a_selected_stage_ends_with_its_step_to_the_next_resolution():
    net = tiny("focalnet", out_features=["stage1"])
    assert len(net.stages) == 1
    assert [m.shape[1:] for m in maps(net, 64, 96).feature_maps] == [(16, 8, 12)]
    assert not any(p.requires_grad for p in net.norm.parameters())


def test_the_context_of_a_place_is_the_whole_map():
    """The last level is an average over the map: no place is out of sight."""
    net = tiny("focalnet", out_features=["stage1"], depths=[1, 1, 1, 1]).eval()
    x = images(net, 256, 256, batch=1).requires_grad_()
    net(x).feature_maps[0][0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"focal_windows": [3, 4, 3, 3]}, r"^focalnet: focal_windows=\[3, 4, 3, 3\] must be odd"),
        (
            {"depths": [1]},
            r"^focalnet: depths=\[1\] and focal_levels=\[2, 2, 2, 2\] and focal_windows=\[3, 3, 3, 3\] must be",
        ),
    ],
)
def test_contradictions_are_named(fields, text):
    with pytest.raises(ValueError, match=text):
        FocalNetConfig(**fields)
