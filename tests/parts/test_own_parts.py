"""A user's module of parts, from its import to the record of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch import nn

from bbframe import registry
from bbframe.registry import load_plugin, parse_part, register
from bbframe.run.configuration import parse_configuration
from bbframe.run.training_run import run

SOURCE = Path(__file__).with_name("own_parts.py")
CONF = Path(__file__).parents[2] / "conf"
USUAL = {"task": "classification", "head": "linear", "data": "digits", "optim": "adamw", "schedule": "cosine"}


def configuration(**changes):
    """The default configuration as plain data, without Hydra; `changes` replace or add to groups and keys."""
    data = yaml.safe_load((CONF / "config.yaml").read_text())
    config = {key: value for key, value in data.items() if key not in ("defaults", "hydra")}
    files = {**USUAL, "trainer": "default", "logger": "csv", "backbone": "resnet"}
    config |= {group: yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) for group, name in files.items()}
    config["backbone"] |= {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1] * 4, "layer_type": "basic"}
    for key, value in changes.items():
        merges = isinstance(value, dict) and "name" not in value and isinstance(config.get(key), dict)
        config[key] = {**config[key], **value} if merges else value
    return config


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The module `lab.parts` in a package of its own, loaded; afterwards nothing of it is registered.

    What else is registered meanwhile, such as a backbone that a test is the first to import, stays.
    """

    def forget():
        for part in registry.from_plugins():
            if part.plugin.startswith("lab."):
                del registry._parts[part.kind, part.name]
        for name in ("lab", "lab.parts", "lab.more"):
            sys.modules.pop(name, None)

    forget()
    monkeypatch.setattr(registry, "_plugins", {})
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab" / "parts.py").write_text(SOURCE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    load_plugin("lab.parts")
    yield tmp_path / "lab" / "parts.py"
    forget()


def test_a_plugin_is_recorded_with_its_hash_and_its_parts_with_the_plugin(plugin):
    (found,) = registry.plugins()
    assert found == registry.Plugin("lab.parts", None, hashlib.sha256(plugin.read_bytes()).hexdigest())
    parts = registry.from_plugins()
    assert {(part.kind, part.name, part.plugin) for part in parts if part.plugin.startswith("lab.")} == {
        ("loss", "focal", "lab.parts"),
        ("head", "max_pool", "lab.parts"),
        ("data", "stripes", "lab.parts"),
    }


@pytest.mark.long
def test_defaults_of_a_plugins_options_are_plain_data(plugin):
    for part in (part for part in registry.from_plugins() if part.plugin.startswith("lab.")):
        data = dataclasses.asdict(part.options())
        assert parse_part(part.kind, yaml.safe_load(json.dumps(data)), part.kind) == part.options()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_parts_of_ones_own_train_and_test(plugin, tmp_path):
    config = configuration(
        task={"loss": {"name": "focal", "gamma": 3}},
        head={"name": "max_pool", "hidden": 8},
        data={"name": "stripes", "image_size": 32},
        debug=True,
    )
    folder = tmp_path / "run"
    folder.mkdir()
    summary = run(parse_configuration(config), config, ["task.loss=focal"], folder)
    assert summary["test"]["loss"] > 0
    recorded = yaml.safe_load((folder / "config.yaml").read_text())
    assert (recorded["head"]["name"], recorded["task"]["loss"]["gamma"]) == ("max_pool", 3)
    environment = json.loads((folder / "environment.json").read_text())
    (named,) = environment["plugins"]
    assert named == {"module": "lab.parts", "version": None, "sha256": hashlib.sha256(plugin.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"loss": "focall"}}, "task: loss='focall'; did you mean 'focal'?"),
        ({"task": {"loss": {"name": "focal", "gama": 3}}}, "task: loss: unknown option 'gama'; did you mean 'gamma'?"),
        ({"task": {"loss": {"name": "focal", "gamma": "x"}}}, "task: loss: gamma='x' must be a number"),
        ({"task": {"loss": "my.losses.Focal"}}, "register the part, and give its module by --plugin"),
        (
            {"task": {"loss": {"_target_": "torch.load"}}},
            "task: loss: _target_='torch.load': a configuration names",
        ),
        ({"task": {"metrics": ["acuracy"]}}, "task: metrics[0]='acuracy'; did you mean 'accuracy'?"),
        ({"head": {"name": "max_pol"}}, "head: name='max_pol'; did you mean 'max_pool'?"),
        ({"data": {"name": "stripes", "cuont": 3}}, "data: unknown option 'cuont'; did you mean 'count'?"),
        ({"data": {"transforms": ["invert"]}}, "data: transforms[0]='invert'"),
        ({"optim": {"name": "lion"}}, "needs --plugin its.module"),
        ({"callbacks": {"x": "mine"}}, "callbacks.x='mine'"),
        (
            {"callbacks": {"x": {"_target_": "lab.parts.Foo"}}},
            "given by --plugin and chosen by its name",
        ),
    ],
)
@pytest.mark.usefixtures("plugin")
def test_a_bad_choice_is_refused_by_name_with_the_nearest_fix(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_configuration(configuration(**changes))
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nameless:
    gamma: float = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    name: str = "mine"


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("loss", "mine", Nameless, "Nameless needs a field `name: str = 'mine'`"),
        ("loss", "mine", dict, "dict must be a dataclass"),
        ("los", "mine", Named, "no kind of part 'los'; did you mean 'loss'?"),
        ("optim", "mine", Named, "Named must extend bbframe.tasks.optimizer_options.OptimOptions"),
        ("loss", "cross_entropy", Named, "loss 'cross_entropy' is taken by bbframe.tasks.losses:CrossEntropy"),
    ],
)
def test_a_part_that_cannot_be_registered_is_refused(kind, name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        register(kind, name, options)(type("Mine", (nn.Module,), {}))


def test_a_module_that_cannot_be_imported_is_one_line():
    with pytest.raises(ValueError, match=r"^plugin 'no_such_lab' cannot be imported: ModuleNotFoundError: No module"):
        load_plugin("no_such_lab")


MORE = """
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torchmetrics.classification import MulticlassPrecision

from bbframe.registry import register
from bbframe.tasks import OptimOptions, ScheduleOptions


@dataclass(frozen=True, kw_only=True)
class Options:
    name: str = "mine"
    strength: int = 16


@register("transform", "mine", Options)
class Noise:
    def __init__(self, options):
        self.strength = options.strength

    def __call__(self, image):
        return image ^ torch.randint(self.strength, image.shape, dtype=torch.uint8)


@register("metric", "mine", Options)
def precision(options, num_classes):
    return MulticlassPrecision(num_classes)


@dataclass(frozen=True, kw_only=True)
class RMSpropOptions(OptimOptions):
    name: str = "mine"
    alpha: float = 0.9


@register("optim", "mine", RMSpropOptions)
def rmsprop(options, groups, fused):
    return torch.optim.RMSprop(groups, lr=options.lr, alpha=options.alpha)


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ScheduleOptions):
    name: str = "mine"


@register("schedule", "mine", LinearOptions)
def linear(options, total_steps, steps_per_epoch):
    return lambda step: max(0.0, 1 - step / total_steps)


@register("callback", "mine", Options)
class Count(Callback):
    def __init__(self, options):
        self.options = options

    def on_train_end(self, trainer, pl_module):
        print("strength", self.options.strength)


@register("logger", "mine", Options)
def logger(options, folder):
    return CSVLogger(folder, name="mine", version="")
"""


@pytest.fixture
def more(plugin):
    """The module `lab.more`, loaded: a part of every other kind."""
    (plugin.parent / "more.py").write_text(MORE)
    load_plugin("lab.more")
    return plugin.parent / "more.py"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("more")
def test_every_other_part_of_ones_own_is_chosen_by_its_name(tmp_path, capsys):
    config = configuration(
        task={"metrics": ["mine"]},
        data={"name": "stripes", "image_size": 32, "transforms": [{"name": "mine", "strength": 8}]},
        optim={"name": "mine", "alpha": 0.5},
        schedule={"name": "mine"},
        callbacks={"x": {"name": "mine", "strength": 3}},
        logger={"y": "mine"},
        debug=True,
    )
    folder = tmp_path / "run"
    folder.mkdir()
    summary = run(parse_configuration(config), config, [], folder)
    assert 0 <= summary["test"]["mine"] <= 1
    assert "strength 3" in capsys.readouterr().out
    assert (folder / "mine" / "metrics.csv").is_file()


@pytest.mark.long
@pytest.mark.usefixtures("more")
def test_pytest_checks_the_contracts_of_a_plugin(plugin):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    modules = ["--bbframe-plugin", "lab.parts", "--bbframe-plugin", "lab.more"]
    home = plugin.parent.parent
    (home / "test_other.py").write_text("def test_other():\n    assert False\n")
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(CONF.parent)}
    alone = subprocess.run([*command, *modules], cwd=home, env=bare, capture_output=True, text=True)
    assert "9 passed" in alone.stdout, alone.stdout  # and test_other.py is not looked at
    wrong = subprocess.run(
        [*command, "--bbframe-plugin", "nowhere"], cwd=home, env=bare, capture_output=True, text=True
    )
    assert wrong.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --bbframe-plugin: plugin 'nowhere' cannot be imported" in wrong.stderr
    assert "INTERNALERROR" not in wrong.stdout + wrong.stderr
