"""Positions, offsets and windows at another size: resized from the grid that the checkpoint's config states."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import bbframe
from bbframe import AutoBackbone
from tests.tiny import shaken, tiny

# architecture, the fields that give it a table, the field that the table belongs to, the name of the table
TABLES = [
    ("beit", {"use_absolute_position_embeddings": True, "patch_size": 8}, "image_size", "stem.positions"),
    ("beit", {"use_relative_position_bias": True, "patch_size": 8}, "image_size", "stages.0.bias.table"),
    ("beit", {"use_shared_relative_position_bias": True, "patch_size": 8}, "image_size", "bias.table"),
    ("dinov2", {"patch_size": 8}, "image_size", "stem.positions"),
    ("dinov2_with_registers", {"patch_size": 8}, "image_size", "stem.positions"),
    ("pixio", {"patch_size": 8}, "image_size", "stem.positions"),
    ("rf_detr_dinov2", {"patch_size": 8}, "image_size", "stem.positions"),
    ("vitpose_backbone", {"patch_size": 8}, "image_size", "stem.positions"),
    ("lw_detr_vit", {"patch_size": 8}, "pretrain_image_size", "stem.positions"),
    ("vitdet", {"patch_size": 8, "use_absolute_position_embeddings": True}, "pretrain_image_size", "stem.positions"),
    ("swin", {"patch_size": 8, "use_absolute_embeddings": True}, "image_size", "stem.positions"),
    ("swinv2", {"patch_size": 8, "use_absolute_embeddings": True}, "image_size", "stem.positions"),
    ("maskformer_swin", {"patch_size": 8, "use_absolute_embeddings": True}, "image_size", "stem.positions"),
]
# of the table, of the network; the first two have as many patches, the third a square number, the fourth one side
CASES = [
    ((32, 64), (64, 32)),
    ((32, 32), (16, 64)),
    ((32, 128), 64),
    ((32, 64), 32),
    (32, (48, 80)),
    ((32, 64), (32, 64)),
]


def patches(size):
    height, width = (size, size) if isinstance(size, int) else size
    return height // 8, width // 8


def resized(table, name, size, wanted, antialias=False):
    """The table by torch alone, laid out over the grid that it was made for."""
    given, grid = patches(size), patches(wanted)
    if name == "stem.positions":
        tokens = table.shape[1] - given[0] * given[1]
        image = table[:, tokens:].reshape(1, *given, -1).permute(0, 3, 1, 2)
        image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
        return torch.cat([table[:, :tokens], image.flatten(2).transpose(1, 2)], dim=1)
    image = table[:-3].t().reshape(1, -1, 2 * given[0] - 1, 2 * given[1] - 1)
    image = F.interpolate(image, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear", align_corners=False)
    return torch.cat([image[0].flatten(1).t(), table[-3:]])


@pytest.mark.parametrize(("size", "wanted"), CASES)
@pytest.mark.parametrize(("name", "fields", "field", "table"), TABLES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_table_is_resized_from_the_grid_of_the_checkpoint(name, fields, field, table, size, wanted, tmp_path):
    net = shaken(tiny(name, **fields, **{field: size}))
    net.save_pretrained(tmp_path)
    given = net.state_dict()[table]
    config = AutoBackbone.from_pretrained(tmp_path).config
    setattr(config, field, wanted)
    for again in (
        AutoBackbone.from_pretrained(tmp_path, **{field: wanted}),
        AutoBackbone.from_pretrained(tmp_path, config=config),
    ):
        expected = resized(given, table, size, wanted, getattr(net.stem, "antialias", False))
        torch.testing.assert_close(again.state_dict()[table], expected)
        said = again.load_report.adapted.get(table, "")
        grids = [f"{h} x {w}" for h, w in map(patches, (size, wanted))]
        assert said.endswith(f" of {grids[0]} patches resized to {grids[1]}") if size != wanted else not said


@pytest.mark.parametrize("name", ["beit", "dinov2"])
def test_a_configuration_file_resizes_as_well(name, tmp_path):
    fields = {"use_absolute_position_embeddings": True} if name == "beit" else {}
    net = shaken(tiny(name, patch_size=8, image_size=(32, 64), **fields))
    net.save_pretrained(tmp_path)
    again = bbframe.make_backbone(
        {"model_type": name, "pretrained": True, "checkpoint": str(tmp_path), "image_size": [64, 32]}
    )
    expected = resized(net.state_dict()["stem.positions"], "stem.positions", (32, 64), (64, 32))
    torch.testing.assert_close(again.state_dict()["stem.positions"], expected)


def test_without_a_config_beside_it_a_table_of_another_size_is_a_square(tmp_path):
    net = shaken(tiny("dinov2", patch_size=8, image_size=32))
    net.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    config = tiny("dinov2", patch_size=8, image_size=(16, 48)).config
    again = AutoBackbone.from_pretrained(tmp_path, config=config)
    assert again.load_report.adapted == {"stem.positions": "positions of 4 x 4 patches resized to 2 x 6"}


def test_a_config_that_leaves_the_size_out_means_its_default(tmp_path):
    net = shaken(tiny("dinov2", patch_size=56))
    assert net.config.image_size == 224 or net.config.image_size
    net = shaken(tiny("dinov2", patch_size=56, image_size=224))
    net.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    del data["image_size"]  # as transformers writes a default
    (tmp_path / "config.json").write_text(json.dumps(data))
    again = AutoBackbone.from_pretrained(tmp_path, image_size=[112, 448])
    assert again.load_report.adapted["stem.positions"] == "positions of 4 x 4 patches resized to 2 x 8"


@pytest.mark.parametrize("name", ["swin", "maskformer_swin"])
@pytest.mark.parametrize("window", [2, 5])
def test_the_biases_of_windows_are_resized(name, window, tmp_path):
    net = shaken(tiny(name, window_size=3))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, window_size=window)
    key = "stages.0.blocks.0.position_bias"
    image = net.state_dict()[key].t().reshape(1, -1, 5, 5)
    expected = F.interpolate(image, size=(2 * window - 1,) * 2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(again.state_dict()[key], expected[0].flatten(1).t())
    assert again.load_report.adapted[key] == f"offsets of 3 x 3 patches resized to {window} x {window}"


def test_other_windows_of_swinv2_know_those_that_they_were_learned_with(tmp_path):
    net = tiny("swinv2", patch_size=4, image_size=64, window_size=8, depths=[1, 1], num_heads=[2, 2], out_indices=[2])
    assert [net.config.window(level)[0] for level in range(2)] == [8, 8]
    net.save_pretrained(tmp_path)
    same = AutoBackbone.from_pretrained(tmp_path)
    assert not any(same.config.pretrained_window_sizes)
    larger = AutoBackbone.from_pretrained(tmp_path, image_size=128, window_size=16)
    assert larger.config.pretrained_window_sizes[:2] == (8, 8)
    assert [stage.pretrained_size for stage in larger.stages] == [8, 8]
    assert "=[8, 8], the windows that the checkpoint was trained with" in str(larger.load_report)
    said = AutoBackbone.from_pretrained(tmp_path, window_size=4, pretrained_window_sizes=[6, 6])
    assert said.config.pretrained_window_sizes == (6, 6)
    # a larger image alone enlarges the windows of late stages, whose biases were learned in small ones
    small = tiny(
        "swinv2", patch_size=4, image_size=32, window_size=8, depths=[1, 1], num_heads=[2, 2], out_indices=[2]
    )
    small.save_pretrained(tmp_path / "small")
    grown = AutoBackbone.from_pretrained(tmp_path / "small", image_size=64)
    assert [(stage.size, stage.pretrained_size) for stage in grown.stages] == [(8, 8), (8, 4)]


def test_tables_along_sides_follow_their_side(tmp_path):
    fields = {"patch_size": 8, "use_relative_position_embeddings": True, "window_block_indices": []}
    net = shaken(tiny("vitdet", image_size=(32, 64), **fields))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, image_size=(64, 32)).state_dict()
    for name, side in (("rows", 8), ("columns", 4)):
        table = net.state_dict()[f"stages.0.attn.positions.{name}"]
        expected = F.interpolate(table.t()[None], size=2 * side - 1, mode="linear", align_corners=False)[0].t()
        torch.testing.assert_close(again[f"stages.0.attn.positions.{name}"], expected)


def test_what_was_saved_after_resizing_reads_back_equal(tmp_path):
    net = shaken(tiny("dinov2", patch_size=8, image_size=(32, 64)))
    net.save_pretrained(tmp_path / "one")
    AutoBackbone.from_pretrained(tmp_path / "one", image_size=(64, 32)).save_pretrained(tmp_path / "two")
    again = AutoBackbone.from_pretrained(tmp_path / "two")
    assert not again.load_report.adapted
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    key = next(key for key in one if key.endswith("position_embeddings"))
    expected = resized(one[key], "stem.positions", (32, 64), (64, 32))
    torch.testing.assert_close(two[key], expected)


@pytest.mark.long
@pytest.mark.parametrize(("size", "wanted"), [([32, 64], [64, 32]), ([64, 64], [32, 128]), ([32, 64], 32)])
def test_timms_positions_are_resized_from_their_grid(size, wanted, tmp_path):
    pytest.importorskip("timm")
    config = {"model_type": "timm_backbone", "backbone": "test_vit", "model_args": {"img_size": size}}
    net = shaken(AutoBackbone.from_config(config))
    net.save_pretrained(tmp_path)
    again = AutoBackbone.from_pretrained(tmp_path, model_args={"img_size": wanted})
    (key,) = [key for key in net.state_dict() if key.endswith("pos_embed")]
    table, (height, width) = net.state_dict()[key], size
    grid = [side // 16 for side in ([wanted] * 2 if isinstance(wanted, int) else wanted)]
    tokens = table.shape[1] - height // 16 * (width // 16)
    image = table[:, tokens:].reshape(1, height // 16, width // 16, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(again.state_dict()[key], torch.cat([table[:, :tokens], image], dim=1))
    assert key in again.load_report.adapted
