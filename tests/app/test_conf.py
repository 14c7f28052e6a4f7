"""Every YAML file composes to a configuration that passes the check, and says what the code says."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from bbframe import registry
from bbframe.app.composition import composition, plain_data
from bbframe.app.places import HOME
from bbframe.auto import AutoBackbone, backbone_class, list_backbones
from bbframe.config import SELECTION
from bbframe.factory import Source, check_backbone, make_backbone
from bbframe.run.configuration import RunOptions, TrainerOptions, parse_configuration
from bbframe.schema import parse
from docs import options as options_page

CONF, RECIPES = HOME / "conf", HOME / "recipes"
CHOICES = [
    (group.name, file.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir()
    for file in sorted(group.glob("*.yaml"))
]
BACKBONES = [choice for group, choice in CHOICES if group == "backbone"]
DETECTION = {
    *(("head", name) for group, name in CHOICES if group == "head" and name not in ("linear", "multi_level")),
    *(("data", name) for name in registry.names("data") if registry.find("data", name).options.task == "detection"),
}
NEEDED = {
    "image_folder": ["data.root=photos"],
    "coco": ["data.train_images=photos", "data.train_annotations=boxes.json"],
    "voc": ["data.root=photos"],
}  # what cannot have a default


@cache
def _composed(*overrides):
    with composition() as compose:
        return plain_data(compose, list(overrides))


def composed(*overrides):
    """The plain data that overrides compose to; composed once for all tests, and each may change its own."""
    return copy.deepcopy(_composed(*overrides))


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["=".join(pair) for pair in CHOICES])
def test_every_choice_of_every_group_composes_and_passes(group, choice, monkeypatch):
    monkeypatch.setattr("bbframe.auto.machine_memory", lambda: math.inf)  # some have billions of parameters
    detection = (group, choice) in DETECTION
    config = composed(*(["task=detection"] if detection else []), f"{group}={choice}", *NEEDED.get(choice, []))
    plan = parse_configuration(config)
    assert plan.backbone.config.stages
    if group == "backbone":
        assert config["backbone_name"] == choice


@pytest.mark.parametrize("recipe", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_every_recipe_composes_and_its_header_says_how_and_what(recipe):
    text = (RECIPES / f"{recipe}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f"recipes={recipe}" in line for line in header), "the header must give the command"
    assert re.search("accuracy|mAP", text), "the header must give the metric"
    assert any(re.search(r"\d s\b|days", line) for line in header), "the header must give the time"
    given = ["backbone.checkpoint=somewhere"] if "checkpoint: null" in text else []
    given += ["trainer.accelerator=auto"] if "accelerator: gpu" in text else []  # composes where there is none
    assert parse_configuration(composed(f"recipes={recipe}", *given)).run.train


@pytest.mark.parametrize("choice", BACKBONES)
def test_a_file_gives_every_option_of_its_config(choice):
    options = composed(f"backbone={choice}")["backbone"]
    config_class = backbone_class(options["model_type"]).config_class
    fields = {*config_class.field_names(), *SELECTION}
    names = {config_class.attribute_map.get(key, key) for key in options}
    sources = {field.name for field in dataclasses.fields(Source)}
    missing = fields - names - {"stages_of", "use_pretrained_backbone"}
    assert not missing
    assert names <= fields | sources | {"model_type"}


@pytest.mark.parametrize("name", [name for name in list_backbones() if (CONF / "backbone" / f"{name}.yaml").exists()])
def test_the_file_of_an_architecture_agrees_with_its_config_class(name):
    """One default, said twice, must be said alike; null in the file stands for the default of the class."""
    options = yaml.safe_load((CONF / "backbone" / f"{name}.yaml").read_text())
    checked = check_backbone(options)
    default = type(checked.config)()
    for name in default.field_names():
        assert getattr(checked.config, name) == getattr(default, name), name
    assert checked.config == default
    source = checked.source
    assert (source.source, source.pretrained, source.revision) == ("transformers", False, None)


def test_every_architecture_has_a_file():
    assert [name for name in list_backbones() if name not in BACKBONES] == []


PARTS = [(kind, name) for kind in ("task", "head", "optim", "schedule") for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_the_file_of_a_part_agrees_with_its_options(kind, name):
    """One default, said twice, must be said alike, and no option may be missing from the file."""
    data = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
    data.pop("defaults", None)
    options = registry.find(kind, name).options
    assert set(data) == {field.name for field in dataclasses.fields(options)}
    assert registry.parse_part(kind, data, kind) == options(name=name)


def test_the_file_of_the_trainer_agrees_with_its_options():
    data = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    assert parse(TrainerOptions, data, "trainer") == TrainerOptions()
    assert set(data) == {field.name for field in dataclasses.fields(TrainerOptions)}


def test_the_top_of_the_configuration_agrees_with_its_options():
    data = yaml.safe_load((CONF / "config.yaml").read_text())
    for field in dataclasses.fields(RunOptions):
        assert data[field.name] == (list(field.default) if isinstance(field.default, tuple) else field.default)


@pytest.mark.parametrize("choice", [name for name in BACKBONES if name != "timm"])
def test_every_variant_has_as_many_parameters_as_its_file_says(choice):
    """The comment `# 25.6 M parameters ...` of a file, against the network on the meta device."""
    options = composed(f"backbone={choice}")["backbone"]
    line = next(x for x in (CONF / "backbone" / f"{choice}.yaml").read_text().splitlines() if "M parameters" in x)
    said = float(line.split(" M parameters")[0].split()[-1])
    with torch.device("meta"):
        net = AutoBackbone.from_config(check_backbone(options).config)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(said, abs=0.06)


def test_groups_of_ones_own_come_from_another_folder(tmp_path: Path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("defaults: [resnet18, _self_]\ndepths: [1, 1, 1, 1]\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "ours.yaml").write_text("# @package _global_\nseed: 5\n")
    with composition(tmp_path) as compose:
        config = plain_data(compose, ["backbone=mine", "recipes=ours"])
    assert (config["backbone"]["depths"], config["seed"]) == ([1, 1, 1, 1], 5)


@pytest.mark.parametrize("fast", [True, False])
def test_a_file_says_whether_arithmetic_may_be_faster(fast, tmp_path, monkeypatch):
    converted = []
    monkeypatch.setattr("bbframe.auto.convert", lambda net: converted.append(net) or net)
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text(f"defaults: [resnet18, _self_]\nfast: {str(fast).lower()}\n")
    with composition(tmp_path) as compose:
        plan = parse_configuration(plain_data(compose, ["backbone=mine"]))
    net = make_backbone(plan.backbone)
    assert converted == [net] * fast


def test_every_option_has_a_meaning():
    """Beside its key in a file, or among the meanings of the fields that several architectures have."""
    rows = options_page.PAGE.read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row.startswith("| `") and row.endswith("|  |")] == []
