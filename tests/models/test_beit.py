"""What BEiT alone promises."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bbframe import AutoBackbone, BeitBackbone, BeitConfig
from bbframe.auto import config_from_dict
from bbframe.layers.positions import RelativeBias
from tests.tiny import GOLDEN, golden_config, images, tiny

SHARED = {"use_relative_position_bias": False, "use_shared_relative_position_bias": True}
EVERYTHING = {"use_absolute_position_embeddings": True, "use_shared_relative_position_bias": True}


def filled(net):
    """The same backbone, its tables of positions not zero."""
    for module in net.modules():
        if isinstance(module, RelativeBias):
            torch.nn.init.normal_(module.table)
    return net.eval()


def pyramid(**fields):
    torch.manual_seed(0)
    return AutoBackbone.from_config(golden_config("beit/fpn", **fields))


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("beit").eval()
    with torch.no_grad():
        out = net(images(net, 16, 24), output_hidden_states=True, output_attentions=True)
    heads, width = net.config.num_attention_heads, net.config.hidden_size
    assert [tuple(a.shape) for a in out.attentions] == [(2, heads, 7, 7)] * net.config.num_hidden_layers
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 7, width)] * len(net.stage_names)


def test_a_shared_bias_is_the_bias_of_every_block_and_made_once():
    own, shared = filled(tiny("beit")), filled(tiny("beit", **SHARED))
    shared.load_state_dict(own.state_dict(), strict=False)
    for block in own.stages:
        block.bias.load_state_dict(shared.bias.state_dict())
    made = []
    shared.bias.register_forward_hook(lambda *_: made.append(1))
    for size in ((32, 32), (48, 40)):
        x = images(own, *size)
        for a, b in zip(own(x).feature_maps, shared(x).feature_maps, strict=True):
            torch.testing.assert_close(a, b)
    assert len(made) == 2


def test_shared_and_own_bias_add_up():
    both = filled(tiny("beit", use_shared_relative_position_bias=True))
    sums = tiny("beit").eval()
    sums.load_state_dict(both.state_dict(), strict=False)
    for block in sums.stages:
        block.bias.table.data += both.bias.table.data
    x = images(both, 32, 32)
    torch.testing.assert_close(both(x).feature_maps[-1], sums(x).feature_maps[-1])


@pytest.mark.parametrize("selection", [[0], [1], [-1]])
def test_every_kind_of_position_takes_a_gradient_where_it_serves(selection):
    net = tiny("beit", **EVERYTHING, out_indices=selection)
    net.gradient_checkpointing_enable()
    assert (net.bias is None) == (selection == [0])
    net(images(net, 40, 24)).feature_maps[0].cos().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_no_layer_scale_has_no_weights():
    bare = tiny("beit", layer_scale_init_value=0.0)
    assert not any("scale" in key for key in bare.state_dict())
    scaled = tiny("beit", layer_scale_init_value=1.0).eval()
    bare.eval().load_state_dict(scaled.state_dict(), strict=False)
    x = images(bare, 32, 32)
    torch.testing.assert_close(bare(x).feature_maps[-1], scaled(x).feature_maps[-1])


@pytest.mark.parametrize("case", ["relbias", "shared_abs"])
def test_tables_adapted_to_a_size_give_the_maps_of_that_size(case):
    folder = GOLDEN / "beit" / case
    net, adapted = (AutoBackbone.from_pretrained(folder, image_size=size) for size in (32, (40, 64)))
    assert not net.load_report.adapted
    report = adapted.load_report.adapted
    assert set(report) == {key for key in net.state_dict() if key.endswith(("bias.table", "stem.positions"))}
    for key, how in report.items():
        kind = "positions" if key == "stem.positions" else "offsets"
        assert how == f"{kind} of 4 x 4 patches resized to 5 x 8"
    x = images(net, 40, 64)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])


# the pyramid


def test_a_pyramids_strides_follow_the_selection():
    config = golden_config("beit/fpn")
    assert config.strides == config.out_strides == [2, 4, 8, 16]
    assert [stage.stride for stage in config.stages] == [8, 2, 4, 8, 16]
    net = pyramid().eval()
    net.out_features = ["stem", "stage1", "stage2", "stage4"]
    assert net.strides == net.out_strides == [2, 4, 8, 16]
    with torch.no_grad():
        maps = net(images(net, 50, 39)).feature_maps  # 6 x 4 patches
    assert [tuple(m.shape[2:]) for m in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert config_from_dict(net.config.to_dict()) == net.config


@pytest.mark.parametrize(
    "selection",
    [{"out_indices": [1, 2, 4]}, {}, {"out_indices": [1, 2, 3, 4], "out_strides": [8, 8, 8, 8]}, {"out_strides": 4}],
)
def test_a_pyramid_is_made_of_four_stages(selection):
    with pytest.raises(
        ValueError, match=r"strides \[4, 8, 16, 32\] from four stages, such as out_indices=\[3, 6, 9, 12\]"
    ):
        BeitConfig(add_fpn=True, **selection)
    with pytest.raises(ValueError, match="no stage 'stage13'"):
        BeitConfig(add_fpn=True, out_features=["stage1", "stage2", "stage3", "stage13"])
    net = pyramid()
    with pytest.raises(ValueError, match=r"given are out_features=\['stage1', 'stage2'\] and"):
        net.out_indices = [1, 2]
    assert net.out_indices == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="patch_size=14 must be a multiple of 4"):
        BeitConfig(add_fpn=True, patch_size=14, out_indices=[3, 6, 9, 12])


def test_levels_of_the_pyramid_that_are_not_read_do_not_train():
    def trains():
        return [any(p.requires_grad for p in level.parameters()) for level in net.pyramid]

    net = pyramid()
    for read in ([True, False], [False, True], [False, False], [True, True]):
        net.use_maps([name for name, is_read in zip(net.out_features, [*read, True, True], strict=True) if is_read])
        assert trains() == [*read, False, False]
    net.requires_grad_(False)
    net.use_maps(net.out_features[1:])
    net.use_maps(net.out_features)
    assert trains() == [False] * 4


def test_a_checkpoint_of_segmentation_has_a_pyramid_to_take_or_leave(tmp_path):
    tensors = load_file(GOLDEN / "beit" / "fpn" / "model.safetensors")
    named = {key if key.startswith("fpn") else f"beit.{key}": value for key, value in tensors.items()}
    heads = {f"{head}.classifier.bias": torch.zeros(2) for head in ("decode_head", "auxiliary_head", "lm_head")}
    index = {"beit.encoder.relative_position_bias.relative_position_index": torch.zeros(2, 2)}
    save_file({**named, **heads, **index}, tmp_path / "model.safetensors")
    data = json.loads((GOLDEN / "beit" / "fpn" / "config.json").read_text())
    data = {**data, "architectures": ["BeitForSemanticSegmentation"], "segmentation_indices": [1, 2, 3, 4]}
    del data["out_indices"], data["out_features"], data["add_fpn"]
    (tmp_path / "config.json").write_text(json.dumps(data))
    plain = BeitBackbone.from_pretrained(tmp_path)
    assert plain.out_indices == [1, 2, 3, 4]
    assert plain.strides == [8] * 4
    assert not plain.load_report.unknown_config
    assert sum(key.startswith("fpn") for key in plain.load_report.ignored) == 11
    assert BeitBackbone.from_pretrained(tmp_path, out_features=["stage2"]).out_indices == [2]
    whole = BeitBackbone.from_pretrained(tmp_path, add_fpn=True)
    assert len(whole.load_report.ignored) == 4
    x = images(whole, 32, 32)
    expected = AutoBackbone.from_pretrained(GOLDEN / "beit" / "fpn")
    with torch.no_grad():
        for a, b in zip(whole(x).feature_maps, expected(x).feature_maps, strict=True):
            assert torch.equal(a, b)


def test_output_matrices_are_smaller_the_deeper_they_stand():
    torch.manual_seed(0)
    net = AutoBackbone.from_config(BeitConfig(hidden_size=96, num_hidden_layers=8, num_attention_heads=3))
    for depth, block in enumerate(net.stages, start=1):
        for last in (block.attn.proj, block.mlp.fc2):
            assert last.weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.05)
