"""What HGNetV2 alone promises."""

from __future__ import annotations

import pytest
import torch

import bbframe
from bbframe import AutoBackbone
from bbframe.auto import config_from_dict
from tests.tiny import distance, images, shaken, tiny, tiny_config

# what a variant of timm's has; the rest are the config's defaults
B0 = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}


@pytest.mark.parametrize(("name", "config"), [("hgnetv2_b0", B0), ("hgnetv2_b4", {"model_type": "hgnet_v2"})])
def test_weights_by_timms_names_give_timms_maps(name, config, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = shaken(timm.create_model(name))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=config, out_indices=[1, 2, 3, 4])
    assert all(key.startswith("head.") for key in ours.load_report.ignored)
    x = torch.randn(1, 3, 75, 53)
    with torch.no_grad():
        for a, b in zip(ours(x).feature_maps, theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            assert distance(a, b) < 1e-5


def test_the_authors_detector_is_read_by_their_names(tmp_path):
    """D-FINE's file holds the detector twice, as it trains and averaged, with names of its own around the backbone."""
    net = shaken(tiny("hgnet_v2"))
    (names,) = net.originals
    backbone = {f"backbone.{names.theirs(key)[0]}": value for key, value in net.state_dict().items()}
    assert "backbone.stages.1.blocks.0.layers.0.conv2.lab.scale" in backbone
    average = {**backbone, "encoder.input_proj.0.conv.weight": torch.ones(3), "decoder.up": torch.ones(1)}
    model = {key: value + 1 for key, value in average.items()}
    torch.save({"model": model, "ema": {"module": average}, "last_epoch": 3}, tmp_path / "dfine.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "dfine.pth", config=net.config)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())


def test_the_affine_blocks_follow_activations_alone():
    names = {key.rpartition(".lab.")[0] for key in tiny("hgnet_v2").state_dict() if ".lab." in key}
    assert names >= {"stem.stem2a", "stages.0.blocks.0.layers.0", "stages.1.blocks.0.layers.0.conv2"}
    assert not {name for name in names if "downsample" in name or name.endswith(".conv1")}
    without = tiny("hgnet_v2", use_learnable_affine_block=False)
    assert not [key for key in without.state_dict() if ".lab." in key]


def test_number_of_channels_counts_and_not_the_stems():
    net = tiny("hgnet_v2", num_channels=5)
    assert net.config.stem_channels[0] == 5
    assert net(images(net, 64, 96)).feature_maps[0].shape[1] == 12
    given = {**net.config.to_dict(), "num_channels": 3}
    assert config_from_dict(given).stem_channels[0] == 3


def test_kernels_for_other_channels_are_made_of_the_checkpoints(tmp_path):
    net = shaken(tiny("hgnet_v2"))
    net.save_pretrained(tmp_path)
    gray = AutoBackbone.from_pretrained(tmp_path, num_channels=1)
    assert list(gray.load_report.adapted) == ["stem.stem1.conv.weight"]


def test_a_file_says_what_transformers_counts_by_and_is_read_without_it():
    config = tiny_config("hgnet_v2")
    data = config.to_dict()
    assert (data["embedding_size"], data["hidden_sizes"]) == (12, [16, 24, 32, 40])
    assert data["depths"] == [1, 1, 2, 1]
    early = {**data, "hidden_sizes": [256, 512, 1024, 2048], "embedding_size": 64, "layer_type": "basic"}
    assert config_from_dict(early) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_in_channels": [12, 16, 24, 40]}, r"stage_in_channels=\[12, 16, 24, 40\] must be the channels before"),
        ({"stem_strides": [2, 2, 1, 2, 1]}, r"stem_strides=\[2, 2, 1, 2, 1\] must be 1 in the second and the third"),
        ({"stage_kernel_size": [3, 3, 4, 5]}, r"stage_kernel_size=\[3, 3, 4, 5\] must be odd"),
        ({"stem_channels": [3, 1, 12]}, r"stem_channels=\[3, 1, 12\] must have 2 or more in the middle"),
        ({"stage_num_blocks": [1, 1, 1]}, "stage_num_blocks=.* must be equally long"),
        ({"stage_downsample_strides": [[2, 1], 2, 2, 2]}, "stage_downsample_strides"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"hgnet_v2: .*{message}"):
        tiny_config("hgnet_v2", **fields)


def test_fewer_stages_may_leave_four_strides():
    four = {"stage_downsample_strides": (2, 2, 2, 2)}
    three = {key: value[:3] for key, value in tiny_config("hgnet_v2").to_dict().items() if key.startswith("stage_")}
    del three["stage_names"]
    config = bbframe.HGNetV2Config(stem_channels=(3, 8, 12), **{**three, **four})
    assert [stage.stride for stage in config.stages] == [4, 4, 8, 16]


def test_strides_are_counted_from_the_stem():
    net = tiny("hgnet_v2", stem_strides=[1, 1, 1, 2, 3], stage_downsample_strides=[2, 3, 1, 2])
    assert [stage.stride for stage in net.config.stages] == [6, 6, 18, 18, 36]
    shapes = [tuple(m.shape[2:]) for m in net(images(net, 75, 53)).feature_maps]
    assert shapes == [(-(-75 // s), -(-53 // s)) for s in (6, 6, 18, 18, 36)]
