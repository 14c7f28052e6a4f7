"""Names, indices and strides of stages: what is taken, and what each refusal says."""

from __future__ import annotations

import re

import pytest

from bbframe import ConvNextV2Config, Dinov2Config
from bbframe.selection import Stage, align

STAGES = [Stage("stem", 8, 4), *(Stage(f"stage{i}", 8 * i, 2 * 2**i) for i in range(1, 5))]
MENU = "0..4 (0=stem, 1=stage1, 2=stage2, 3=stage3, 4=stage4)"
NAMES = "stem, stage1, stage2, stage3, stage4"


def select(out_features=None, out_indices=None, out_strides=None, stages=STAGES):
    return align("net", stages, out_features, out_indices, out_strides)


@pytest.mark.parametrize(
    ("given", "names", "indices"),
    [
        ({}, ["stage4"], [4]),
        ({"out_features": ["stem", "stage2"]}, ["stem", "stage2"], [0, 2]),
        ({"out_features": ("stage3",)}, ["stage3"], [3]),
        ({"out_indices": [0, 2]}, ["stem", "stage2"], [0, 2]),
        ({"out_indices": (1,)}, ["stage1"], [1]),
        ({"out_indices": range(1, 3)}, ["stage1", "stage2"], [1, 2]),
        ({"out_indices": [-5, -1]}, ["stem", "stage4"], [-5, -1]),
        ({"out_indices": [0, 1, -1]}, ["stem", "stage1", "stage4"], [0, 1, -1]),
        ({"out_strides": [8, 16, 32]}, ["stage2", "stage3", "stage4"], [2, 3, 4]),
        ({"out_strides": (4,)}, ["stage1"], [1]),
        ({"out_features": ["stem", "stage4"], "out_indices": [0, -1]}, ["stem", "stage4"], [0, -1]),
        ({"out_features": ["stem"], "out_strides": [4]}, ["stem"], [0]),
        (
            {"out_features": ["stem", "stage1"], "out_indices": [0, 1], "out_strides": [4, 4]},
            ["stem", "stage1"],
            [0, 1],
        ),
    ],
)
def test_each_way_determines_the_others(given, names, indices):
    strides = tuple(STAGES[i].stride for i in indices)
    assert select(**given) == (tuple(names), tuple(indices), strides)


def test_a_stride_that_repeats_means_its_last_stage():
    plain = [Stage(name, 8, 14) for name in ("stem", "stage1", "stage2")]
    assert select(out_strides=[14], stages=plain) == (("stage2",), (2,), (14,))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"out_indices": [3, 1]}, f"net: out_indices=[3, 1] must rise within {MENU}; did you mean [1, 3]?"),
        (
            {"out_indices": [9]},
            f"net: out_indices=[9]: no stage 9; choose within {MENU} or -5..-1; the nearest is 4",
        ),
        (
            {"out_indices": [-7]},
            f"net: out_indices=[-7]: no stage -7; choose within {MENU} or -5..-1; the nearest is -5",
        ),
        (
            {"out_indices": [[1]]},
            f"net: out_indices=[[1]] must be a list of integers within {MENU}; did you mean [1]?",
        ),
        ({"out_indices": 3}, f"net: out_indices=3 must be a list of integers within {MENU}; did you mean [3]?"),
        (
            {"out_indices": "[1,3]"},
            f"net: out_indices='[1,3]' must be a list of integers within {MENU}; did you mean [1, 3]?",
        ),
        (
            {"out_indices": [1.0]},
            f"net: out_indices=[1.0] must be a list of integers within {MENU}; did you mean [1]?",
        ),
        ({"out_indices": [True]}, f"net: out_indices=[True] must be a list of integers within {MENU}"),
        ({"out_indices": []}, "net: out_indices=[] selects nothing; leave it null for the last stage, [4]"),
        ({"out_indices": [1, 1, 2]}, f"net: out_indices=[1, 1, 2] repeats a stage of {MENU}; did you mean [1, 2]?"),
        ({"out_indices": [4, -1]}, f"net: out_indices=[4, -1] repeats a stage of {MENU}; did you mean [-1]?"),
        ({"out_indices": [-1, 0]}, f"net: out_indices=[-1, 0] must rise within {MENU}; did you mean [0, -1]?"),
        (
            {"out_features": ["stge2"]},
            f"net: out_features=['stge2']: no stage 'stge2'; did you mean 'stage2'? (stages: {NAMES})",
        ),
        (
            {"out_features": "stage2"},
            f"net: out_features='stage2' must be a list of stage names, such as ['stage2'] (stages: {NAMES})",
        ),
        (
            {"out_features": [1]},
            f"net: out_features=[1] must be a list of stage names, such as ['stage4'] (stages: {NAMES})",
        ),
        (
            {"out_features": 1},
            f"net: out_features=1 must be a list of stage names, such as ['stage4'] (stages: {NAMES})",
        ),
        ({"out_features": []}, "net: out_features=[] selects nothing; leave it null for the last stage, 'stage4'"),
        (
            {"out_features": ["stage2", "stem"]},
            f"net: out_features=['stage2', 'stem'] must rise within {MENU}; did you mean ['stem', 'stage2']?",
        ),
        (
            {"out_features": ["stem", "stem"]},
            f"net: out_features=['stem', 'stem'] repeats a stage of {MENU}; did you mean ['stem']?",
        ),
        (
            {"out_features": ["stem", "stage2"], "out_indices": [0, 1]},
            "net: out_features=['stem', 'stage2'] and out_indices=[0, 1] name different stages; give one of them, "
            "or out_indices=[0, 2]",
        ),
        (
            {"out_features": ["stem", "stage2"], "out_indices": [0]},
            "net: out_features=['stem', 'stage2'] and out_indices=[0] name different stages; give one of them, "
            "or out_indices=[0, 2]",
        ),
        (
            {"out_strides": [12]},
            "net: out_strides=[12]: no stage of stride 12; choose from [4, 8, 16, 32]; the nearest is 8",
        ),
        ({"out_strides": [16, 8]}, "net: out_strides=[16, 8] must rise within [4, 8, 16, 32]; did you mean [8, 16]?"),
        ({"out_strides": [8, 8]}, "net: out_strides=[8, 8] repeats a stage of [4, 8, 16, 32]; did you mean [8]?"),
        ({"out_strides": []}, "net: out_strides=[] selects nothing; choose from [4, 8, 16, 32]"),
        (
            {"out_strides": 8},
            "net: out_strides=8 must be a list of integers among [4, 8, 16, 32]; did you mean [8]?",
        ),
        (
            {"out_strides": [[8]]},
            "net: out_strides=[[8]] must be a list of integers among [4, 8, 16, 32]; did you mean [8]?",
        ),
        (
            {"out_features": ["stage2"], "out_strides": [16]},
            "net: out_strides=[16] contradicts the selected ['stage2'], whose strides are [8]; give only one of "
            "out_features, out_indices and out_strides",
        ),
        (
            {"out_indices": [2], "out_strides": 8},
            "net: out_strides=8 contradicts the selected ['stage2'], whose strides are [8]; give only one of "
            "out_features, out_indices and out_strides",
        ),
    ],
)
def test_a_refusal_names_the_model_the_value_the_menu_and_the_nearest_fix(given, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        select(**given)


@pytest.mark.parametrize("value", [[3, 1], [9], [-7], [[1]], 3, "stage1", []])
def test_configs_refuse_at_once_and_on_assignment_in_the_same_words(value):
    with pytest.raises(ValueError, match=r"^convnextv2: out_indices=.*(0\.\.4|selects nothing)") as made:
        ConvNextV2Config(out_indices=value)
    config = ConvNextV2Config()
    with pytest.raises(ValueError, match=r"^convnextv2: out_indices=") as assigned:
        config.out_indices = value
    assert str(made.value) == str(assigned.value)


def test_long_menus_are_shortened():
    with pytest.raises(ValueError, match=re.escape("0..12 (0=stem, 1=stage1, 2=stage2, ..., 12=stage12)")):
        Dinov2Config(out_indices=[13])
