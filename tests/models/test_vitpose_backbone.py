"""What ViTPose alone promises."""

import re

import pytest
import torch
from torch.nn import functional as F

from bbframe import AutoBackbone, VitPoseBackboneConfig
from tests.tiny import GOLDEN, distance, images, shaken, tiny

EXPERTS = {"num_experts": 3, "part_features": 8}


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("vitpose_backbone").eval()
    with torch.no_grad():
        out = net(images(net, 44, 48), output_hidden_states=True, output_attentions=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 3, 9, 9)] * 3
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 9, 24)] * 4
    assert out.feature_maps[0].shape == (2, 24, 3, 3)


@pytest.mark.parametrize("side", [32, 43, 44, 47, 60, 61])
def test_the_image_is_padded_by_two_pixels(side):
    net = tiny("vitpose_backbone").eval()
    x = images(net, side, 64)
    patches = F.conv2d(F.pad(x, (2, 2, 2, 2)), net.stem.patch.weight, net.stem.patch.bias, stride=16)
    with torch.no_grad():
        m = net(x).feature_maps[0]
    assert m.shape[2:] == patches.shape[2:] == ((side + 4) // 16, 4)


def test_one_expert_gives_the_last_channels_and_it_alone_trains():
    nets = [shaken(tiny("vitpose_backbone", **EXPERTS, dataset_index=index)) for index in range(3)]
    x = images(nets[0], 64, 48)
    for index, net in enumerate(nets):
        block = net.stages[0]
        trained = [all(p.requires_grad for p in expert.parameters()) for expert in block.mlp.experts]
        assert trained == [other == index for other in range(3)]
        hidden = block.mlp.act(block.mlp.fc1(x.flatten()[:24]))
        expected = torch.cat([block.mlp.fc2(hidden), block.mlp.experts[index](hidden)])
        torch.testing.assert_close(block.mlp(x.flatten()[:24]), expected)
    with torch.no_grad():
        first, second, _ = (net(x).feature_maps[-1] for net in nets)
    assert distance(first, second) > 0.1


def test_every_expert_is_saved_and_another_is_chosen_when_loading(tmp_path):
    net = shaken(tiny("vitpose_backbone", **EXPERTS))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, dataset_index=2)
    assert (net.config.dataset_index, again.config.dataset_index) == (0, 2)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    x = images(net, 64, 48)
    expected = shaken(tiny("vitpose_backbone", **EXPERTS, dataset_index=2))
    with torch.no_grad():
        assert distance(again(x).feature_maps[-1], expected(x).feature_maps[-1]) < 1e-5


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("index", range(3))
def test_experts_compute_what_those_of_transformers_do(index, tmp_path):
    transformers = pytest.importorskip("transformers")
    net = shaken(tiny("vitpose_backbone", **EXPERTS, dataset_index=index))
    net.save_pretrained(tmp_path)
    theirs = transformers.VitPoseBackbone.from_pretrained(tmp_path).eval()
    x = images(net, 64, 48)
    expected = theirs(x, dataset_index=torch.tensor([index, index])).feature_maps
    with torch.no_grad():
        for ours, tokens in zip(net(x).feature_maps, expected, strict=False):
            assert distance(ours, tokens.transpose(1, 2).unflatten(2, ours.shape[2:])) < 1e-5


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"dataset_index": 1}, "dataset_index=1 must be within 0..0 with num_experts=1 and hidden_size=768"),
        ({"num_experts": 6, "part_features": 0}, "part_features=0 must be within 1..767 with num_experts=6"),
        ({"num_experts": 6, "part_features": 768}, "part_features=768 must be within 1..767 with num_experts=6"),
        ({"patch_size": [16, 8]}, "patch_size=[16, 8] must be an integer within 1..512 pixels"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(fields, text):
    with pytest.raises(ValueError, match=f"^vitpose_backbone: {re.escape(text)}"):
        VitPoseBackboneConfig(**fields)


def test_both_sides_of_a_patch_may_be_stated():
    for config in (
        VitPoseBackboneConfig(patch_size=(16, 16)),
        VitPoseBackboneConfig.from_dict({"patch_size": [16, 16]}),
    ):
        assert config.patch_size == 16


def test_a_position_table_adapted_to_a_size_gives_the_maps_of_that_size():
    folder = GOLDEN / "vitpose_backbone" / "plain"
    net, adapted = (AutoBackbone.from_pretrained(folder, **size) for size in ({}, {"image_size": [48, 80]}))
    assert adapted.load_report.adapted == {"stem.positions": "positions of 4 x 3 patches resized to 3 x 5"}
    x = images(net, 48, 80)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])


def test_the_authors_names_are_read(tmp_path):
    net = shaken(tiny("vitpose_backbone", **EXPERTS))
    state = {}
    for key, value in net.state_dict().items():
        key = (
            key.replace("stages.", "blocks.")
            .replace("stem.positions", "pos_embed")
            .replace("stem.patch", "patch_embed.proj")
        )
        state["backbone." + (key if not key.startswith("norm.") else f"last_{key}")] = value
    heads = ["backbone.cls_token", "keypoint_head.final_layer.weight", "associate_keypoint_heads.0.final_layer.bias"]
    torch.save({"state_dict": {**state, **{key: torch.zeros(3) for key in heads}}}, tmp_path / "vitpose+_tiny.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "vitpose+_tiny.pth", config=net.config)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    assert len(again.load_report.ignored) == 3
