"""What the README says is tried: every command line composes, every example in Python runs."""

from __future__ import annotations

import re
import shlex
import sys
import types

import pytest
import torch

import bbframe
from bbframe.app.combinations import expand, with_ends
from bbframe.app.composition import composition, plain_data
from bbframe.app.help import usage
from bbframe.app.places import HOME
from bbframe.heads.levels import choose_pyramid
from bbframe.run.configuration import parse_configuration

README = (HOME / "README.md").read_text()
COMMANDS = re.findall(r"^python train\.py ([^#\n]+?) *(?:#.*)?$", README, flags=re.MULTILINE)
HELP = re.findall(r"^  python train\.py (.+)$", usage(), flags=re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("line", [line for line in [*COMMANDS, *HELP] if not re.search(r"<(run|sweep)>", line)])
def test_every_command_line_composes_and_passes(line):
    given = [word for word in shlex.split(line) if word != "-m" and not word.startswith("hydra.sweeper.")]
    with composition() as compose:
        for overrides in expand(with_ends(given)):
            assert parse_configuration(plain_data(compose, overrides)).backbone.config.channels


def test_there_are_commands_to_try():
    assert len(COMMANDS) >= 8
    assert len(HELP) == 3


def test_the_example_of_ones_own_backbone_works(monkeypatch):
    code = next(block for block in BLOCKS if "TwoBackbone" in block)
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    names = vars(module)
    exec(code.replace("@register\n", ""), names)  # registered for good it would show up in other tests
    net = names["TwoBackbone"](names["TwoConfig"](out_indices=[0, 1]))
    maps = net(torch.zeros(1, 3, 16, 24)).feature_maps
    assert [tuple(x.shape) for x in maps] == [(1, 16, 4, 6), (1, 32, 2, 3)]
    pruned = names["TwoBackbone"](names["TwoConfig"](out_features=["stem"]))
    assert len(pruned.stages) == 0


def test_the_names_in_the_library_examples_exist():
    for name in re.findall(r"from bbframe import (.+)", README):
        for part in name.split(","):
            assert hasattr(bbframe, part.strip())


def test_every_recipe_is_in_the_table():
    for recipe in sorted(path.stem for path in (HOME / "recipes").glob("*.yaml")):
        assert f"| `{recipe}` |" in README


def test_the_matrix_of_detection_has_every_backbone_and_its_pyramid():
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (feature|simple|by its strides) \| ✓ \| ✓ \| ✓ \| ✓ \|$", README, re.MULTILINE)
    )
    assert set(rows) == set(bbframe.list_backbones())
    for name in set(rows) - {"timm"}:
        with composition() as compose:
            plan = parse_configuration(plain_data(compose, ["task=detection", f"backbone={name}"]))
        assert rows[name] == {"fpn": "feature", "simple": "simple"}[choose_pyramid(None, plan.backbone.config.strides)]
