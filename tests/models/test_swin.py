"""What Swin and its twin inside MaskFormer promise beyond the contract."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bbframe import AutoBackbone, MaskFormerSwinBackbone, SwinConfig
from tests.tiny import distance, images, tiny


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("swin", window_size=3).eval()
    with torch.no_grad():
        out = net(images(net, 28, 48), output_hidden_states=True, output_attentions=True)
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 7, 12, 12), (2, 7, 12, 12), (2, 4, 6, 24)]
    assert [tuple(a.shape) for a in out.attentions] == [(2, 12, 2, 9, 9)] * 2 + [(2, 4, 3, 9, 9)] * 2


def test_only_every_second_block_looks_beyond_its_window():
    stage = tiny("swin", window_size=4, depths=[3, 1]).double().eval().stages[0]
    x = torch.randn(1, 8, 8, 12, dtype=torch.float64)
    changed = x.clone()
    changed[:, 3, 3] *= -1
    reached = []
    with torch.no_grad():
        for count in range(1, 4):
            blocks, stage.blocks = stage.blocks, stage.blocks[:count]
            reached.append((stage(x) - stage(changed)).abs().sum((0, -1)) > 0)
            stage.blocks = blocks
    assert torch.equal(reached[0].nonzero(), torch.cartesian_prod(torch.arange(4), torch.arange(4)))
    shifted = torch.zeros(8, 8, dtype=torch.bool)
    shifted[:6, :6] = True  # block 2 has a window from 2 to 5, and what reaches it lies in smaller ones from 0 to 1
    assert torch.equal(reached[1], shifted)
    assert reached[2].all()


def test_positions_of_any_shape_are_resized_to_the_grid_at_hand():
    net = tiny("swin", use_absolute_embeddings=True, image_size=[24, 32], out_features=["stem"]).eval()
    bare = tiny("swin", out_features=["stem"]).eval()
    bare.load_state_dict(net.state_dict(), strict=False)
    table = net.stem.positions.detach().view(1, 6, 8, 12).permute(0, 3, 1, 2)
    assert table.std() > 0.01
    for height, width in ((24, 32), (32, 24), (13, 50)):
        x = images(net, height, width)
        with torch.no_grad():
            added = net.stem(x) - bare.stem(x)
        expected = F.interpolate(table, (-(-height // 4), -(-width // 4)), mode="bicubic").permute(0, 2, 3, 1)
        torch.testing.assert_close(added, expected.expand(2, -1, -1, -1))


def test_positions_saved_with_one_for_a_class_token_lose_it(tmp_path):
    net = tiny("swin", use_absolute_embeddings=True)
    net.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    key = "embeddings.position_embeddings"
    save_file({**tensors, key: F.pad(tensors[key], (0, 0, 1, 0))}, tmp_path / "model.safetensors")
    again = AutoBackbone.from_pretrained(tmp_path)
    assert again.load_report.adapted == {"stem.positions": "without the position of a class token"}
    assert torch.equal(again.stem.positions, net.stem.positions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [2, 2]}, r"^swin: depths=\[2, 2\] and num_heads=\[3, 6, 12, 24\] must be equally long$"),
        ({"num_heads": [3, 6, 12, 25]}, r"num_heads=\[3, 6, 12, 25\] must divide .*, \[96, 192, 384, 768\];"),
        ({"window_size": 0}, r"^swin: window_size=0 must be an integer within 1\.\.256 tokens$"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SwinConfig(**fields)


def test_the_hubs_other_names_are_understood():
    data = {"num_attention_heads": [1, 2], "num_hidden_layers": 2, "num_layers": 2, "path_norm": True}
    config = SwinConfig.from_dict({**data, "depths": [1, 1]})
    assert (config.num_heads, config.num_layers, config.hidden_size) == ((1, 2), 2, 192)


# inside MaskFormer


def test_inside_maskformer_it_is_swin_but_for_the_norm_of_the_stem():
    net, swin = tiny("maskformer_swin").eval(), tiny("swin", **_sizes()).eval()
    weights = swin.state_dict()
    net.load_state_dict({key: value for key, value in weights.items() if not key.startswith("norms.stem.")})
    x = images(net, 75, 53)
    with torch.no_grad():
        ours, theirs = net(x, output_hidden_states=True), swin(x)
    for a, b in zip(ours.feature_maps[1:], theirs.feature_maps[1:], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours.feature_maps[0], ours.hidden_states[0].permute(0, 3, 1, 2))


def _sizes():
    config = tiny("maskformer_swin").config
    return {key: getattr(config, key) for key in ("embed_dim", "depths", "num_heads", "window_size", "qkv_bias")}


def test_norms_train_again_after_the_stem_alone_was_selected():
    net = tiny("maskformer_swin")
    assert isinstance(net, MaskFormerSwinBackbone)
    net.out_features = ["stem"]
    net.out_features = ["stage1", "stage2"]
    assert [name for name, norm in net.norms.items() if any(p.requires_grad for p in norm.parameters())] == [
        "stage1",
        "stage2",
    ]


def test_names_on_disk_are_those_of_maskformers_backbone(tmp_path):
    net = tiny("maskformer_swin", out_features=["stage2"])
    net.save_pretrained(tmp_path)
    saved = set(load_file(tmp_path / "model.safetensors"))
    assert {"hidden_states_norms.0.weight", "hidden_states_norms.1.bias"} <= saved
    assert all(name.startswith(("model.embeddings.", "model.encoder.", "hidden_states_norms.")) for name in saved)
    bare = {name.removeprefix("model."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(bare, tmp_path / "model.safetensors")
    x = images(net, 32, 48)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert distance(again.eval()(x).feature_maps[0], net.eval()(x).feature_maps[0]) == 0
