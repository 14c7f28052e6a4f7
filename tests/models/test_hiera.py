"""What Hiera alone promises."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bbframe import AutoBackbone
from bbframe.layers.pooling import largest
from bbframe.models.hiera import HieraConfig, UnitAttention
from tests.tiny import GOLDEN, distance, images, shaken, tiny, tiny_config

FOLDER = GOLDEN / "hiera" / "plain"


def states(net, x):
    with torch.no_grad():
        return net(x, output_hidden_states=True).hidden_states


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("hiera").eval()  # units of 4 x 4 in the first stage, and in the first block of the second
    with torch.no_grad():
        out = net(images(net, 64, 96), output_hidden_states=True, output_attentions=True)
    shapes = [(2, 24, 1, 16, 16), (2, 24, 2, 4, 16), (2, 1, 2, 96, 96), (2, 1, 4, 24, 96)]
    assert [tuple(a.shape) for a in out.attentions] == shapes
    assert [tuple(s.shape) for s in out.hidden_states] == [
        (2, 16, 24, 12),
        (2, 16, 24, 12),
        (2, 8, 12, 24),
        (2, 4, 6, 48),
    ]


@pytest.mark.parametrize("size", [(5, 6), (8, 8), (1, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_at_an_edge_holds_what_there_is_of_it(size, stride):
    """A map inside one unit attends as a map without units does, in values and in gradients."""
    torch.manual_seed(0)
    units, whole = (UnitAttention(12, 16, 2, stride, unit) for unit in (8, 0))
    whole.load_state_dict(units.state_dict())
    one, other = (torch.randn(2, *size, 12, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in "ab")
    torch.testing.assert_close(units(one), whole(other))
    for attention, x in ((units, one), (whole, other)):
        attention(x).cos().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_units_see_nothing_of_each_other():
    net = tiny("hiera", out_features=["stage1"]).eval()
    x = images(net, 64, 96)
    changed = x.clone()
    changed[:, :, :, 80:] = 0  # far from the units in front of it, whose patches overlap by three pixels
    before, after = (net(y).feature_maps[0] for y in (x, changed))
    assert torch.equal(before[..., :16], after[..., :16])
    assert not torch.equal(before[..., 20:], after[..., 20:])


def test_of_equal_places_the_first_one_of_a_group_takes_the_gradient():
    x = torch.zeros(1, 3, 4, 1, requires_grad=True)
    largest(x, 2).sum().backward()
    assert torch.equal(x.grad[0, :, :, 0], torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]]))


def test_what_has_two_sides_is_one_number_or_two_and_saved_as_two():
    config = HieraConfig.from_dict(json.loads((FOLDER / "config.json").read_text()))
    assert (config.image_size, config.patch_size, config.query_stride) == (64, 7, 2)
    assert config.to_dict()["masked_unit_size"] == [8, 8]
    assert tiny_config("hiera", image_size=96) == tiny_config("hiera", image_size=[96, 96])
    assert tiny_config("hiera", image_size=[64, 96]).grid == (16, 24)


def test_a_checkpoint_of_transformers_backbone_has_its_order_of_tokens(tmp_path):
    """That class takes rows of the image for units; what a classifier saved was trained with units."""
    net = AutoBackbone.from_pretrained(GOLDEN / "hiera" / "global")
    assert net.config.token_order == "rows"
    assert AutoBackbone.from_pretrained(FOLDER).config.token_order == "units"
    net.save_pretrained(tmp_path)
    assert AutoBackbone.from_pretrained(tmp_path).config.token_order == "rows"
    units = AutoBackbone.from_pretrained(tmp_path, token_order="units")
    units.save_pretrained(tmp_path)
    assert AutoBackbone.from_pretrained(tmp_path).config.token_order == "units"
    x = images(net, 64, 64)
    with torch.no_grad():
        assert distance(net(x).feature_maps[-1], units(x).feature_maps[-1]) > 0.1
        for m, stride in zip(net(images(net, 75, 53)).feature_maps, net.strides, strict=True):  # as few as whole units
            assert m.shape[2:] == (80 // stride, 64 // stride)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_stride": [2, 1]}, r"hiera: query_stride=\[2, 1\] must be as high as wide, such as 2"),
        ({"masked_unit_size": 6}, "masked_unit_size=6 must be a multiple of 4: of query_stride=2 to the power of 2"),
        ({"num_query_pool": 3}, "num_query_pool=3 must be at most 2"),
        ({"patch_padding": 4}, "patch_padding=4 must be at most half patch_size=7"),
        ({"patch_size": [7, 128]}, r"image_size=\[64, 96\] must be at least patch_size=\[7, 128\]"),
        ({"num_heads": [1, 5, 4]}, r"num_heads=\[1, 5, 4\] must divide the channels of their stages, \[12, 24, 48\]"),
    ],
)
def test_impossible_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config("hiera", **fields)


def test_a_stage_without_pooling_keeps_its_resolution():
    """As while pretraining, where two stages pool."""
    net = tiny("hiera", num_query_pool=1)
    assert net.config.num_features == [12, 12, 24, 48]
    assert [stage.stride for stage in net.config.stages] == [4, 4, 8, 8]
    assert net(images(net, 64, 96)).feature_maps[-1].shape == (2, 48, 8, 12)


def test_a_position_table_adapted_to_a_size_gives_the_maps_of_that_size():
    net, adapted = (AutoBackbone.from_pretrained(FOLDER, **size) for size in ({}, {"image_size": [96, 64]}))
    assert adapted.load_report.adapted == {"stem.positions": "positions of 16 x 16 patches resized to 24 x 16"}
    x = images(net, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])


def test_a_checkpoint_of_pretraining_gives_its_encoder(tmp_path):
    (tmp_path / "config.json").write_text((FOLDER / "config.json").read_text())
    tensors = load_file(FOLDER / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if name.startswith(("hiera.emb", "hiera.enc"))}
    others = "encoder_norm.weight decoder.mask_token decoder.decoder_block.layers.0.attn.qkv.weight"
    others += " multiscale_fusion.multi_scale_fusion_heads.0.weight"
    save_file({**tensors, **{name: torch.zeros(1) for name in others.split()}}, tmp_path / "model.safetensors")
    net, expected = AutoBackbone.from_pretrained(tmp_path), AutoBackbone.from_pretrained(FOLDER)
    assert sorted(net.load_report.ignored) == sorted(others.split())
    assert torch.equal(net(x := images(net, 64, 64)).feature_maps[0], expected(x).feature_maps[0])


def test_the_authors_and_timms_names_give_timms_maps(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"embed_dim": 16, "stages": (1, 2, 1, 1), "num_heads": 1, "img_size": (96, 64)}
    theirs = shaken(timm.create_model("hiera_tiny_224", **options))
    decoder = {
        "encoder_norm.bias": torch.zeros(16),
        "decoder_pos_embed": torch.zeros(1, 6, 8),
        "mask_token": torch.zeros(1),
    }
    torch.save({"model_state": {**theirs.state_dict(), **decoder}}, tmp_path / "mae_hiera.pth")
    config = {"model_type": "hiera", "embed_dim": 16, "depths": [1, 2, 1, 1], "image_size": [96, 64]}
    ours = AutoBackbone.from_pretrained(tmp_path / "mae_hiera.pth", config=config)
    assert set(decoder) <= set(ours.load_report.ignored)
    x = images(ours, 96, 64)
    with torch.no_grad():
        wanted = theirs.forward_intermediates(x, intermediates_only=True)
    for state, expected in zip(states(ours, x)[1:], wanted, strict=True):
        assert distance(state.permute(0, 3, 1, 2), expected) < 1e-5


FOUR = {"depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "masked_unit_attention": [True, True, False, False]}
FOUR |= {"embed_dim": 8, "num_query_pool": 3, "masked_unit_size": 8, "image_size": 64}
TWO = {
    "image_size": 64,
    "out_features": None,
    "depths": [1, 2],
    "num_heads": [1, 2],
    "num_query_pool": 1,
    "masked_unit_attention": [True, False],
}


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "fields",
    [
        FOUR,
        {**FOUR, "num_query_pool": 2},
        {**FOUR, "num_query_pool": 1, "masked_unit_attention": [True] * 4},
        {**FOUR, "num_query_pool": 0},
        {**FOUR, "masked_unit_attention": [False] * 4},
        {**FOUR, "masked_unit_attention": [True, False, True, False]},
        {**FOUR, "embed_dim": 10, "embed_dim_multiplier": 1.5, "num_heads": [1, 1, 2, 3]},
        {**FOUR, "image_size": [64, 128], "patch_size": [5, 9], "patch_padding": [2, 4]},
        {**TWO, "masked_unit_size": 2, "masked_unit_attention": [True, True]},
        {**TWO, "query_stride": 4, "masked_unit_size": 4},
    ],
)
def test_states_and_gradients_are_those_of_transformers_model(fields, tmp_path):
    """Of the model; its backbone leaves out the reordering of tokens."""
    transformers = pytest.importorskip("transformers")
    net = shaken(tiny("hiera", **fields))
    net.save_pretrained(tmp_path)
    theirs = transformers.HieraModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    size = net.config.image_size
    x = images(net, *(size if isinstance(size, tuple) else (size, size))).requires_grad_()
    ours = net(x, output_hidden_states=True).hidden_states[1:]
    wanted = theirs(x, output_hidden_states=True).reshaped_hidden_states[1:]
    for a, b in zip(ours, wanted, strict=True):
        assert distance(a, b) < 1e-5
    grads = [torch.autograd.grad(sum(state.cos().sum() for state in y), x)[0] for y in (ours, wanted)]
    assert distance(*grads) < 1e-4


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_transformers_pretraining_model_gives_its_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    fields = {name: tiny_config("hiera", **FOUR).to_dict()[name] for name in (*FOUR, "patch_size", "patch_stride")}
    decoder = {"decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    theirs = shaken(transformers.HieraForPreTraining(transformers.HieraConfig(**fields, **decoder)))
    theirs.save_pretrained(tmp_path)
    net = AutoBackbone.from_pretrained(tmp_path)
    assert any(name.startswith("decoder.") for name in net.load_report.ignored)
    assert all(name.startswith("norms.") for name in net.load_report.fresh)
    model = transformers.HieraModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    x = images(net, 64, 64)
    with torch.no_grad():
        wanted = model(x, output_hidden_states=True).reshaped_hidden_states
    assert distance(states(net, x)[-1], wanted[-1]) < 1e-5
