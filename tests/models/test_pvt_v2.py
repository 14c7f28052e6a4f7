"""What PVT v2 alone promises."""

import json
import re

import pytest
import torch

from bbframe import AutoBackbone
from bbframe.auto import config_from_dict
from bbframe.models.pvt_v2 import PvtV2Config
from tests.tiny import GOLDEN, distance, images, shaken, tiny, tiny_config


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("pvt_v2", linear_attention=False).eval()
    with torch.no_grad():
        out = net(images(net, 64, 96), output_hidden_states=True, output_attentions=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 1, 384, 6), (2, 2, 96, 6), (2, 3, 24, 6), (2, 4, 6, 6)]
    sizes = [(16, 24, 8), (16, 24, 8), (8, 12, 16), (4, 6, 24), (2, 3, 32)]
    assert [tuple(state.shape) for state in out.hidden_states] == [(2, *size) for size in sizes]


def test_linear_attention_asks_49_places_at_any_size():
    net = tiny("pvt_v2", linear_attention=True).eval()
    for size in ((64, 96), (75, 53), (3, 200)):
        with torch.no_grad():
            attentions = net(images(net, *size), output_attentions=True).attentions
        assert {a.shape[-1] for a in attentions} == {49}


def test_a_file_of_transformers_counts_stages_from_behind_the_stem():
    data = json.loads((GOLDEN / "pvt_v2" / "linear" / "config.json").read_text())
    assert data["out_indices"] == [0, 1, 2, 3]
    config = config_from_dict(data)
    assert config.out_features == ["stage1", "stage2", "stage3", "stage4"]
    assert config.out_indices == [1, 2, 3, 4]
    saved = config.to_dict()
    assert {key: saved[key] for key in ("out_indices", "out_features", "stage_names", "strides")} == {
        key: data[key] for key in ("out_indices", "out_features", "stage_names", "strides")
    }
    with_stem = PvtV2Config(out_features=["stem", "stage2"])
    assert (with_stem.to_dict()["out_indices"], with_stem.to_dict()["stage_names"][0]) == ([0, 2], "stem")
    assert config_from_dict(with_stem.to_dict()) == with_stem
    last = PvtV2Config(out_indices=[-1])
    assert config_from_dict(last.to_dict()) == last
    assert last.to_dict()["out_indices"] == [-1]
    with pytest.raises(ValueError, match="name different stages"):
        config_from_dict({**data, "out_indices": [0, 1, 2]})


def test_the_strides_of_patches_and_those_of_the_maps_are_told_apart():
    config = tiny_config("pvt_v2", patch_strides=[2, 2, 2, 3], out_indices=[1, 4])
    assert config.strides == config.out_strides == [2, 24]
    assert config_from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"pvt_v2: strides\[0\]=0 must be"):
        PvtV2Config.from_dict({"strides": [0, 2, 2, 2]})


def authors_name(name):
    """The name that the authors give to a weight that timm has renamed."""
    name = re.sub(r"^patch_embed\.", "patch_embed1.", name)
    name = re.sub(r"^stages\.(\d+)\.downsample", lambda found: f"patch_embed{int(found[1]) + 1}", name)
    name = re.sub(r"^stages\.(\d+)\.blocks\.", lambda found: f"block{int(found[1]) + 1}.", name)
    name = re.sub(r"^stages\.(\d+)\.norm", lambda found: f"norm{int(found[1]) + 1}", name)
    return name.replace("mlp.dwconv", "mlp.dwconv.dwconv")


@pytest.mark.parametrize("rename", [str, authors_name], ids=["timm", "authors"])
@pytest.mark.parametrize("linear", [False, True])
def test_the_authors_and_timms_names_give_timms_maps(linear, rename, tmp_path):
    """They normalise patches and keys with an eps of 1e-5, where transformers has the 1e-6 of the blocks."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4)}
    theirs = shaken(timm.create_model("pvt_v2_b2_li" if linear else "pvt_v2_b0", **sizes))
    for norm in theirs.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            norm.eps = 1e-6
    torch.save({rename(name): value for name, value in theirs.state_dict().items()}, tmp_path / "pvt.pth")
    fields = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
    config = {"model_type": "pvt_v2", "linear_attention": linear, "out_indices": [1, 2, 3, 4], **fields}
    ours = AutoBackbone.from_pretrained(tmp_path / "pvt.pth", config=config)
    assert sorted(ours.load_report.ignored) == ["head.bias", "head.weight"]
    x = images(ours, 96, 64)
    with torch.no_grad():
        for a, b in zip(ours(x).feature_maps, theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            assert distance(a, b) < 1e-5
