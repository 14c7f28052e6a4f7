"""What RF-DETR's encoder alone promises."""

import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from bbframe import AutoBackbone, RfDetrDinov2Config, make_backbone
from tests.tiny import GOLDEN, distance, images, shaken, tiny

WINDOWED = GOLDEN / "rf_detr_dinov2" / "windowed"
NAMES = {"num_hidden_layers": 12}


def test_attentions_and_hidden_states_have_the_documented_layout():
    net = tiny("rf_detr_dinov2").eval()
    with torch.no_grad():
        out = net(images(net, 56, 84), output_hidden_states=True, output_attentions=True)
    inside, across = (2, 4, 3, 7, 7), (2, 3, 28, 28)
    assert [tuple(a.shape) for a in out.attentions] == [inside, inside, across, inside]
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 4, 7, 24)] * 5
    token = net.class_token(out.hidden_states[3], "stage3")
    torch.testing.assert_close(token, net.norm(out.hidden_states[3][:, :, 0]).mean(1))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"out_indices": [3, 6, 9, 12]}, [0, 1, 2, 4, 5, 7, 8, 10, 11]),  # as published, but for the base one
        ({"out_features": ["stage2", "stage5", "stage8", "stage11"]}, [0, 1, 3, 4, 6, 7, 9, 10]),
        ({"out_indices": [-11, -8, -5, -2]}, [0, 1, 3, 4, 6, 7, 9, 10]),
        ({"out_indices": [0, 2]}, [1]),
        ({}, list(range(12))),
        ({"out_indices": [3], "window_block_indexes": [5]}, [5]),
        ({"out_indices": [3], "window_block_indexes": []}, []),
    ],
)
def test_blocks_whose_number_no_selected_stage_has_are_windowed(selection, expected):
    assert RfDetrDinov2Config(**NAMES, **selection).window_block_indexes == tuple(expected)


@pytest.fixture
def unstated(tmp_path):
    """The golden checkpoint whose config does not state its blocks with windows: they follow from its selection."""
    data = json.loads((WINDOWED / "config.json").read_text())
    del data["window_block_indexes"]
    (tmp_path / "config.json").write_text(json.dumps(data))
    save_file(load_file(WINDOWED / "model.safetensors"), tmp_path / "model.safetensors")
    return tmp_path


def test_a_selection_never_changes_which_blocks_of_a_checkpoint_have_windows(unstated):
    net = AutoBackbone.from_pretrained(unstated)
    assert net.config.window_block_indexes == (0, 1, 3)
    file = {"model_type": "rf_detr_dinov2", "checkpoint": str(unstated), "pretrained": True}
    x = images(net, 56, 84)
    with torch.no_grad():
        states = net(x, output_hidden_states=True).hidden_states
    named = dict.fromkeys(("image_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_windows"))
    for other in (
        AutoBackbone.from_pretrained(unstated, out_indices=[1, 3, 4]),
        AutoBackbone.from_pretrained(unstated, out_features=["stage4"]),
        make_backbone({**file, **named, "out_indices": [1, 4]}),
        AutoBackbone.from_config(net.config, out_indices=[0, 1, 4]),
    ):
        assert other.config.window_block_indexes == (0, 1, 3)
        if other.load_report:
            with torch.no_grad():
                for a, b in zip(other(x, output_hidden_states=True).hidden_states, states, strict=True):
                    assert distance(a, b) < 1e-6
    other = copy.deepcopy(net)
    other.out_indices = [1, 3]
    with torch.no_grad():
        kept = other(x, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(kept, states, strict=True))


def test_what_is_saved_states_its_blocks_with_windows(tmp_path):
    net = tiny("rf_detr_dinov2", out_indices=[1], window_block_indexes=None)
    assert net.config.window_block_indexes == (0,)
    net.out_indices = [0]
    net.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["window_block_indexes"] == [0]
    assert AutoBackbone.from_pretrained(tmp_path).config.window_block_indexes == (0,)


def test_windows_lie_as_the_image_does_and_do_not_see_each_other():
    for blocks, reach in (([0, 1, 2, 3], False), ([0, 1, 2], True)):
        net = shaken(tiny("rf_detr_dinov2", window_block_indexes=blocks))
        x = images(net, 84, 140)
        changed = x.clone()
        changed[:, :, :42, :70] += 1.0  # the first of four windows
        with torch.no_grad():
            change = (net(x).feature_maps[-1] - net(changed).feature_maps[-1]).abs().sum(dim=(0, 1))
        assert (change[:3, :5] > 0).all()
        assert bool(change[3:].any() or change[:, 5:].any()) is reach


@pytest.mark.parametrize("size", [(56, 70), (70, 56), (14, 14), (97, 75), (27, 112)])
def test_an_image_that_windows_cannot_share_has_the_maps_of_the_one_filled_up(size):
    net = shaken(tiny("rf_detr_dinov2"))
    x = images(net, *size)
    rows, columns = (side // 14 for side in size)
    filled = x.new_zeros(2, 3, 28 * -(-rows // 2), 28 * -(-columns // 2))
    filled[:, :, : 14 * rows, : 14 * columns] = x[:, :, : 14 * rows, : 14 * columns]
    with torch.no_grad():
        for m, expected in zip(net(x).feature_maps, net(filled).feature_maps, strict=True):
            assert m.shape[2:] == (rows, columns)
            assert distance(m, expected[:, :, :rows, :columns]) < 1e-6


def test_without_windows_it_is_dinov2_with_positions_that_are_resized_with_antialias():
    net = shaken(tiny("rf_detr_dinov2", num_windows=1, image_size=56))
    fields = {key: getattr(net.config, key) for key in ("patch_size", "hidden_size", "num_hidden_layers")}
    plain = tiny("dinov2", **fields, image_size=56, use_swiglu_ffn=False).eval()
    plain.load_state_dict(net.state_dict())
    with torch.no_grad():
        for size, same in (((56, 56), True), ((28, 42), False)):
            x = images(net, *size)
            far = distance(net(x).feature_maps[0], plain(x).feature_maps[0])
            assert (far < 1e-5) is same


def test_a_block_that_is_not_there_is_named():
    text = "rf_detr_dinov2: window_block_indexes=[0, 12] must count blocks within 0..11"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        RfDetrDinov2Config(window_block_indexes=[0, 12])


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("selection", [[1, 3], [2, 4], [4], [0, 3]])
def test_blocks_with_windows_are_those_of_transformers(selection, tmp_path):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "RfDetrDinov2Config"):
        pytest.skip("this transformers has no RF-DETR")
    fields = {"num_hidden_layers": 4, "hidden_size": 24, "num_attention_heads": 3, "num_windows": 2, "image_size": 56}
    theirs = transformers.RfDetrDinov2Config(**fields, out_indices=selection)
    ours = RfDetrDinov2Config(**fields, out_indices=selection)
    assert list(ours.window_block_indexes) == sorted(theirs.window_block_indexes)
    net = shaken(transformers.RfDetrDinov2Backbone(theirs))
    net.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        for a, b in zip(AutoBackbone.from_pretrained(tmp_path)(x).feature_maps, net(x).feature_maps, strict=True):
            assert distance(a, b) < 1e-5
