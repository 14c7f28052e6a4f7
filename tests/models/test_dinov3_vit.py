"""What DINOv3's vision transformers alone promise."""

import pytest
import torch

from bbframe import AutoBackbone
from tests.tiny import distance, images, shaken, tiny, tiny_config

NAME = "dinov3_vit"
PLAIN = {"use_gated_mlp": False, "hidden_act": "gelu", "key_bias": False}
GATED = {"use_gated_mlp": True, "hidden_act": "silu", "key_bias": False}


def test_hidden_states_hold_the_registers_and_maps_do_not():
    net = tiny(NAME, patch_size=16).eval()
    with torch.no_grad():
        out = net(images(net, 32, 48), output_hidden_states=True, output_attentions=True)
    count = 1 + net.config.num_register_tokens + 6
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, count, 24)] * len(net.stage_names)
    assert all(a.shape == (2, 3, count, count) for a in out.attentions)


def test_the_last_stage_is_normalised_in_any_case():
    net = shaken(tiny(NAME, apply_layernorm=False))
    last, before = net.stage_names[-1], net.stage_names[-2]
    with torch.no_grad():
        out = net(images(net, 32, 48), output_hidden_states=True)
    prefix = net.stem.num_prefix
    for name, norm in ((last, net.norm), (before, torch.nn.Identity())):
        state = norm(out.hidden_states[net.stage_names.index(name)])
        torch.testing.assert_close(out.feature_maps[net.out_features.index(name)].flatten(2).mT, state[:, prefix:])
        torch.testing.assert_close(net.class_token(out.hidden_states[net.stage_names.index(name)], name), state[:, 0])


def test_the_norm_trains_where_a_selected_map_has_it_and_a_frozen_one_stays_frozen():
    net = tiny(NAME, apply_layernorm=False)
    assert net.norm.weight.requires_grad
    net.select(out_indices=[1])
    assert not net.norm.weight.requires_grad
    net.select(out_indices=[1, -1])
    assert net.norm.weight.requires_grad
    net.requires_grad_(False)
    net.select(out_indices=[-1])
    assert not net.norm.weight.requires_grad
    assert not tiny(NAME, apply_layernorm=False, out_indices=[1]).norm.weight.requires_grad
    assert tiny(NAME, out_indices=[1]).norm.weight.requires_grad


def test_rotations_are_no_part_of_the_weights_and_no_weight_depends_on_the_size(tmp_path):
    net = shaken(tiny(NAME, image_size=32))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, image_size=512)
    assert not again.load_report.adapted
    assert not any("rot" in name or "freq" in name for name in net.state_dict())
    x = images(net, 64, 96)
    with torch.no_grad():
        assert torch.equal(again(x).feature_maps[-1], net(x).feature_maps[-1])


def test_bfloat16_is_as_near_as_its_own_rounding():
    net = shaken(tiny(NAME))
    x = images(net, 64, 96)
    with torch.no_grad():
        expected = net(x).feature_maps[-1]
        assert distance(net.to(torch.bfloat16)(x.bfloat16()).feature_maps[-1].float(), expected) < 0.05


def test_training_stretches_the_coordinates_and_evaluation_does_not():
    net = shaken(tiny(NAME, pos_embed_shift=0.3, pos_embed_jitter=1.2))
    x = images(net, 64, 96)
    with torch.no_grad():
        still = net(x).feature_maps[-1]
        assert torch.equal(net(x).feature_maps[-1], still)
        net.train()
        torch.manual_seed(5)
        moved = net(x).feature_maps[-1]
        torch.manual_seed(5)
        assert torch.equal(net(x).feature_maps[-1], moved)
    assert distance(moved, still) > 1e-3


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [{"pos_embed_rescale": 2.0}, {"pos_embed_shift": 0.3, "pos_embed_jitter": 1.2}])
def test_training_draws_what_transformers_draws(steps, tmp_path):
    transformers = pytest.importorskip("transformers")
    net = shaken(tiny(NAME, **steps))
    net.save_pretrained(tmp_path)
    theirs = transformers.DINOv3ViTBackbone.from_pretrained(tmp_path).train()
    x = images(net, 64, 96)
    found = []
    for one in (net.train(), theirs):
        torch.manual_seed(7)
        found.append(one(x).feature_maps[-1])
    assert distance(*found) < 1e-5


def test_an_impossible_head_is_refused():
    text = r"dinov3_vit: hidden_size=30 must be a multiple of 4 \* num_attention_heads=12: rotary positions"
    with pytest.raises(ValueError, match=text):
        tiny(NAME, hidden_size=30)
    with pytest.raises(ValueError, match=r"pos_embed_jitter=0.5 must be a number within 1..100 times"):
        tiny(NAME, pos_embed_jitter=0.5)


@pytest.mark.parametrize("prefix", ["", "model.", "dinov3_vit.", "backbone.", "backbone.model."])
@pytest.mark.parametrize("fields", [PLAIN, GATED], ids=["plain", "gated"])
def test_layers_are_found_with_and_without_the_encoders_name(fields, prefix):
    """Older files say layer.0, newer ones may say model.layer.0, beside embeddings that have no such prefix."""
    net = shaken(tiny(NAME, **fields))
    disk, outer = dict(_parts(net)), prefix.removesuffix("model.")
    inner = prefix.removeprefix(outer)
    names = {f"{outer}{inner if name.startswith('layer.') else ''}{name}": x for name, x in disk.items()}
    again = AutoBackbone.from_state_dict(net.config, names)
    assert all(torch.equal(x, net.state_dict()[key]) for key, x in again.state_dict().items())


def _parts(net, keys=None):
    """The names and the tensors that a file holds by a table."""
    for key, value in net.state_dict().items():
        parts = (keys or net.keys).theirs(key)
        yield from zip(parts, value.chunk(len(parts)) if len(parts) > 1 else [value], strict=True)


def authors(net):
    """A file as the authors write it: joint biases with a mask, the periods of the rotations, heads."""
    keys, width = net.originals[0], net.config.hidden_size
    weights = dict(_parts(net, keys))
    for name in [name for name in weights if name.endswith(".q_bias")]:
        stem = name.removesuffix(".q_bias")
        q, v = weights.pop(name), weights.pop(f"{stem}.v_bias")
        weights[f"{stem}.qkv.bias"] = torch.cat([q, torch.full((width,), 7.0), v])
        weights[f"{stem}.qkv.bias_mask"] = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    extra = {"rope_embed.periods": torch.ones(2), "local_cls_norm.weight": torch.ones(width)}
    return weights | extra


@pytest.mark.parametrize("fields", [PLAIN, GATED], ids=["plain", "gated"])
def test_the_authors_files_are_read(fields, tmp_path):
    net = shaken(tiny(NAME, **fields))
    weights, first = authors(net), "w1" if net.config.use_gated_mlp else "fc1"
    assert {"storage_tokens", "blocks.0.ls1.gamma", f"blocks.0.mlp.{first}.weight"} <= weights.keys()
    torch.save(weights, tmp_path / "w.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    assert not again.load_report.fresh
    assert all(torch.equal(x, net.state_dict()[key]) for key, x in again.state_dict().items())


def test_a_key_bias_that_no_mask_leaves_out_is_not_dropped(tmp_path):
    net = shaken(tiny(NAME, **PLAIN))
    weights = {name: x for name, x in authors(net).items() if not name.endswith("_mask")}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"unexpected: blocks\.0\.attn\.k_bias"):
        AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    biased = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=tiny_config(NAME, **{**PLAIN, "key_bias": True}))
    assert (biased.stages[0].attn.qkv.k_bias == 7).all()


TIMM = {
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
    "vit_small_plus_patch16_dinov3_qkvb": GATED,
}


@pytest.mark.parametrize("name", TIMM)
def test_weights_by_timms_names_give_timms_maps(name, tmp_path):
    timm = pytest.importorskip("timm")
    theirs = shaken(timm.create_model(name, depth=2))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    config = {"model_type": NAME, "num_hidden_layers": 2, "num_register_tokens": 4, **TIMM[name]}
    net = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=config)
    unbiased = not name.endswith("qkvb")  # the biases were zero in training, and timm has none
    assert any("q_bias" in key for key in net.load_report.fresh) == unbiased
    x = torch.randn(1, 3, 80, 112)
    with torch.no_grad():
        expected = theirs.forward_features(x)[:, 5:].transpose(1, 2).unflatten(2, (5, 7))
        assert distance(net(x).feature_maps[-1], expected) < 1e-5
