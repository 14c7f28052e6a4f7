"""The features of every stage are what its map, its class token and its boxes say."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bbframe.auto import backbone_class
from bbframe.extraction.stage_pooling import CLASS_TOKEN, MEAN, StagePooling, make_with_all_stages, network_digest
from bbframe.factory import check_backbone
from tests.tiny import names, tiny

WITH_TOKENS = [name for name in names() if backbone_class(name).has_class_token]


@pytest.mark.parametrize("name", names())
def test_a_mean_is_that_of_the_map_and_has_the_declared_channels(name):
    net = tiny(name).eval()
    side = 2 * max(net.strides)
    x = torch.randn(2, net.config.num_channels, side, side)
    pooling = StagePooling(net)
    found = pooling.images(x)
    with torch.inference_mode():
        maps = net(x).feature_maps
    assert list(found) == pooling.keys
    for stage, channels, x in zip(net.out_features, net.channels, maps, strict=True):
        torch.testing.assert_close(found[stage, MEAN], x.mean((2, 3)))
        assert found[stage, MEAN].shape == (2, channels)
        assert pooling.strides[stage] == net.strides[net.out_features.index(stage)]


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_a_class_token_is_normalised_as_its_map_is(name):
    """By construction: a state whose tokens are all alike has a map whose mean is its class token."""
    net = tiny(name).eval()
    x = torch.randn(1, 3, 2 * net.strides[0], 2 * net.strides[0])
    found = StagePooling(net).images(x)
    with torch.inference_mode():
        states = net(x, output_hidden_states=True).hidden_states
    for index, stage in enumerate(net.out_features):
        state = states[net.config.stage_names.index(stage)]
        even = state[..., :1, :].expand_as(state)  # inside each window, if any
        with torch.inference_mode():
            one = net.to_map(even, stage, (x.shape[2], x.shape[3])).mean((2, 3))
            torch.testing.assert_close(net.class_token(even, stage), one, msg=f"{name} {index}")
            torch.testing.assert_close(found[stage, CLASS_TOKEN], net.class_token(state, stage))


@pytest.mark.parametrize("name", [name for name in names() if name not in WITH_TOKENS])
def test_an_architecture_without_class_tokens_has_none(name):
    net = tiny(name)
    assert net.class_token(torch.zeros(1, 2, 3), "stage1") is None
    assert {kind for _, kind in StagePooling(net).keys} == {MEAN}


def test_a_box_over_the_whole_image_has_about_the_mean_of_the_map_and_half_a_box_its_half():
    net = tiny("resnet").eval()
    x = torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[0.0, 0, 64, 64], [0, 0, 32, 64]])
    pooling = StagePooling(net, boxes=True)
    found = pooling.boxes(x, [boxes])
    with torch.inference_mode():
        first = net(x).feature_maps[0]
    stage = net.out_features[0]
    fine = F.interpolate(first, scale_factor=8, mode="bilinear", align_corners=False)
    side = fine.shape[-1]
    torch.testing.assert_close(found[stage, MEAN][0], fine.mean((2, 3))[0], atol=0.02, rtol=0.1)
    torch.testing.assert_close(found[stage, MEAN][1], fine[..., : side // 2].mean((2, 3))[0], atol=0.03, rtol=0.2)


def test_all_stages_are_selected_whatever_the_file_selects():
    options = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "embedding_size": 8}
    net = make_with_all_stages(check_backbone({**options, "layer_type": "basic", "out_indices": [2]}))
    assert net.out_features == net.config.stage_names
    assert not net.training


def test_a_pyramid_of_four_stages_keeps_its_selection():
    options = {"model_type": "beit", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    options |= {"intermediate_size": 32, "add_fpn": True, "out_indices": [1, 2, 3, 4], "image_size": 32}
    net = make_with_all_stages(check_backbone(options))
    assert net.out_indices == [1, 2, 3, 4]


def test_a_digest_changes_with_any_weight_the_config_and_the_preparation():
    net = tiny("resnet")
    first = network_digest(net, {"size": 32})
    assert first == network_digest(net, {"size": 32})
    assert first != network_digest(net, {"size": 64})
    with torch.no_grad():
        list(net.parameters())[-1].view(-1)[0] += 1e-3
    assert first != network_digest(net, {"size": 32})


def test_rows_are_float32_on_the_cpu_also_of_a_network_in_bfloat16():
    net = tiny("convnext").eval().to(torch.bfloat16)
    found = StagePooling(net).images(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
    assert all(x.dtype == torch.float32 and np.isfinite(x.numpy()).all() for x in found.values())


def test_options_stay_as_they_were():
    options = check_backbone({"model_type": "resnet", "depths": [1, 1, 1, 1], "out_indices": [1]})
    before = dataclasses.replace(options)
    make_with_all_stages(options)
    assert options == before
    assert options.config.out_indices == [1]
