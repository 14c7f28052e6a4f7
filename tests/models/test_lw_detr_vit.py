"""What LW-DETR's encoder alone promises."""

import re

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from bbframe import AutoBackbone, LwDetrViTConfig
from tests.tiny import GOLDEN, distance, images, shaken, tiny


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("lw_detr_vit").eval()
    with torch.no_grad():
        out = net(images(net, 32, 48), output_hidden_states=True, output_attentions=True)
    inside, across = (2, 4, 3, 6, 6), (2, 3, 24, 24)
    assert [tuple(a.shape) for a in out.attentions] == [inside, across, inside, across]
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 4, 6, 24)] * 5


def test_windows_do_not_see_each_other_and_global_blocks_do():
    for blocks, reach in (([0, 1, 2, 3], False), ([0, 1, 2], True)):
        net = shaken(tiny("lw_detr_vit", window_block_indices=blocks))
        x = images(net, 48, 80)
        changed = x.clone()
        changed[:, :, :24, :40] += 1.0  # the first of four windows
        with torch.no_grad():
            change = (net(x).feature_maps[-1] - net(changed).feature_maps[-1]).abs().sum(dim=(0, 1))
        assert (change[:3, :5] > 0).all()
        assert bool(change[3:].any() or change[:, 5:].any()) is reach


@pytest.mark.parametrize("size", [(32, 40), (40, 32), (8, 8), (75, 53), (31, 96)])
def test_an_image_that_windows_cannot_share_has_the_maps_of_the_one_filled_up(size):
    net = shaken(tiny("lw_detr_vit"))
    x = images(net, *size)
    rows, columns = (side // 8 for side in size)
    filled = x.new_zeros(2, 3, 16 * -(-rows // 2), 16 * -(-columns // 2))
    filled[:, :, : 8 * rows, : 8 * columns] = x[:, :, : 8 * rows, : 8 * columns]
    with torch.no_grad():
        for m, expected in zip(net(x).feature_maps, net(filled).feature_maps, strict=True):
            assert m.shape[2:] == (rows, columns)
            assert distance(m, expected[:, :, :rows, :columns]) < 1e-6


@pytest.mark.slow
def test_windows_compile_once_for_every_size():
    torch._dynamo.reset()
    counter = CompileCounter()
    net = shaken(tiny("lw_detr_vit", num_hidden_layers=2, window_block_indices=[0], out_indices=[2]))
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch, height, width in ((2, 40, 56), (3, 48, 72), (4, 75, 32), (5, 33, 100)):
            x = images(net, height, width, batch)
            torch.testing.assert_close(compiled(x).feature_maps[-1], net(x).feature_maps[-1], atol=1e-5, rtol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"num_windows": 8}, "num_windows=8 must be a square number, such as 4 or 9"),
        ({"window_block_indices": [0, 12]}, "window_block_indices=[0, 12] must count blocks within 0..11"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(fields, text):
    with pytest.raises(ValueError, match=f"^lw_detr_vit: {re.escape(text)}$"):
        LwDetrViTConfig(**fields)


def test_a_position_table_adapted_to_a_size_gives_the_maps_of_that_size():
    folder = GOLDEN / "lw_detr_vit" / "windowed"
    net, adapted = (AutoBackbone.from_pretrained(folder, **size) for size in ({}, {"pretrain_image_size": [48, 80]}))
    assert adapted.load_report.adapted == {"stem.positions": "positions of 8 x 8 patches resized to 6 x 10"}
    x = images(net, 48, 80)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])


def test_the_authors_names_are_read(tmp_path):
    net = shaken(tiny("lw_detr_vit"))
    theirs = {"stages.": "blocks.", "stem.positions": "pos_embed", "stem.patch": "patch_embed.proj", "qkv.q_": "q_"}
    theirs |= {"qkv.v_": "v_", "scale1.weight": "gamma_1", "scale2.weight": "gamma_2"}
    state = {}
    for key, value in net.state_dict().items():
        for ours, name in theirs.items():
            key = key.replace(ours, name)
        state["backbone.0.encoder." + key] = value
    rest = ["backbone.0.projector.stages.0.1.bias", "transformer.decoder.norm.bias", "refpoint_embed.weight"]
    rest += ["class_embed.bias", "bbox_embed.layers.0.weight", "query_feat.weight"]
    torch.save({"model": {**state, **{key: torch.zeros(3) for key in rest}}}, tmp_path / "LWDETR_tiny.pth")
    again = AutoBackbone.from_pretrained(tmp_path / "LWDETR_tiny.pth", config=net.config)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    assert len(again.load_report.ignored) == len(rest)
