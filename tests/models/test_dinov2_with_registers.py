"""What DINOv2 with registers alone promises."""

import pytest
import torch
from torch.nn import functional as F

from bbframe import AutoBackbone
from bbframe.auto import config_from_dict
from tests.tiny import GOLDEN, images, shaken, tiny

NAME = "dinov2_with_registers"


def test_hidden_states_hold_the_registers_and_maps_do_not():
    net = tiny(NAME).eval()
    side = 2 * net.strides[0]
    with torch.no_grad():
        out = net(images(net, side, side + net.strides[0]), output_hidden_states=True, output_attentions=True)
    width, count = net.config.hidden_size, 1 + net.config.num_register_tokens + 6
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, count, width)] * len(net.stage_names)
    assert all(a.shape[-2:] == (count, count) for a in out.attentions)
    registers = out.hidden_states[0][:, 1 : count - 6]
    assert torch.equal(registers, net.stem.registers.expand(2, -1, -1))
    assert all(m.shape == (2, width, 2, 3) for m in out.feature_maps)


def test_registers_change_what_the_patches_see():
    net = shaken(tiny(NAME))
    x = images(net, 56, 56)
    with torch.no_grad():
        before = net(x).feature_maps[-1]
        net.stem.registers.zero_()
        assert not torch.allclose(net(x).feature_maps[-1], before)


@pytest.mark.parametrize("grid", [(4, 4), (2, 7), (1, 1), (9, 3)])
def test_positions_are_resized_with_antialias(grid):
    net = shaken(tiny(NAME))
    patch, side = net.config.patch_size, net.config.image_size // net.config.patch_size
    x = torch.zeros(1, 3, grid[0] * patch, grid[1] * patch)
    table = net.stem.positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(table, size=grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    tokens = net.stem(x)[:, 1 + net.config.num_register_tokens :]
    torch.testing.assert_close(tokens, net.stem.patch.bias + resized)


def test_a_position_table_adapted_to_a_size_gives_the_maps_of_that_size():
    folder = GOLDEN / NAME / "plain"
    net, adapted = (AutoBackbone.from_pretrained(folder, **size) for size in ({}, {"image_size": [42, 84]}))
    assert adapted.load_report.adapted == {"stem.positions": "positions of 4 x 4 patches resized to 3 x 6"}
    x = images(net, 42, 84)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x).feature_maps[-1], net(x).feature_maps[-1])


def test_a_file_without_registers_is_read_and_the_field_of_dinov2_is_unknown(tmp_path):
    net = shaken(tiny(NAME, num_register_tokens=0))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path)
    assert again.stem.registers.shape == (1, 0, net.config.hidden_size)
    assert not again.load_report.fresh
    with pytest.raises(ValueError, match="dinov2_with_registers: unknown option 'use_mask_token'"):
        tiny(NAME, use_mask_token=False)


def test_what_published_files_say_of_the_interpolation_is_no_field():
    data = {"model_type": NAME, "interpolate_antialias": True, "interpolate_offset": 0.0, "patch_size": 14}
    assert type(config_from_dict(data)).foreign_keys(data) == []


def test_the_authors_names_are_read(tmp_path):
    net = shaken(tiny(NAME))
    table = net.originals[0]
    torch.save({part: x for key, x in net.state_dict().items() for part in table.theirs(key)}, tmp_path / "w.pth")
    names = torch.load(tmp_path / "w.pth").keys()
    assert {"register_tokens", "cls_token", "pos_embed", "mask_token", "blocks.0.ls1.gamma"} <= names
    again = AutoBackbone.from_pretrained(tmp_path / "w.pth", config=net.config)
    assert all(torch.equal(x, net.state_dict()[key]) for key, x in again.state_dict().items())
