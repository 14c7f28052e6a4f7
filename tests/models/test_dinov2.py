"""What DINOv2 alone promises."""

import torch

from bbframe import AutoBackbone
from tests.tiny import GOLDEN, images, tiny


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("dinov2").eval()
    with torch.no_grad():
        out = net(images(net, 28, 42), output_hidden_states=True, output_attentions=True)
    heads, width = net.config.num_attention_heads, net.config.hidden_size
    assert [tuple(a.shape) for a in out.attentions] == [(2, heads, 7, 7)] * net.config.num_hidden_layers
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 7, width)] * len(net.stage_names)


def test_the_final_norm_is_on_every_map_and_trains_only_then():
    net, bare = tiny("dinov2"), tiny("dinov2", apply_layernorm=False)
    x = images(net, 28, 42)
    state = net(x, output_hidden_states=True).hidden_states[0]
    expected = net.norm(state)[:, 1:].transpose(1, 2).reshape(2, -1, 2, 3)
    torch.testing.assert_close(net(x).feature_maps[0], expected)
    assert all(p.requires_grad for p in net.norm.parameters())
    assert not any(p.requires_grad for p in bare.norm.parameters())


def test_a_position_table_adapted_to_a_size_gives_the_maps_of_that_size():
    folder = GOLDEN / "dinov2" / "plain"
    net, adapted = (AutoBackbone.from_pretrained(folder, **size) for size in ({}, {"image_size": [42, 84]}))
    (how,) = adapted.load_report.adapted.values()
    side = net.config.image_size // net.config.patch_size
    assert how == f"positions of {side} x {side} patches resized to 3 x 6"
    x = images(net, 42, 84)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])
