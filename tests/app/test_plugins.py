"""Parts of one's own on the command line: chosen with --plugin, listed, recorded, and asked for by a rerun."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from bbframe import registry
from bbframe.app import cli, train
from bbframe.app.composition import register_everything
from bbframe.registry import Plugin

HERE = Path(__file__).parents[1]
SMALL = ["backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,8,8,8]", "backbone.embedding_size=8"]
RUN = ["data=stripes", "data.image_size=32", "head=max_pool", "head.hidden=8", "task.loss={name: focal, gamma: 3}"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The current folder with a package `lab` of parts; `lab()` forgets what was loaded, as a new process does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab" / "parts.py").write_text((HERE / "parts" / "own_parts.py").read_text())
    (tmp_path / "lab" / "net.py").write_text(
        (HERE / "own.py").read_text() + "\n\nfrom bbframe.registry import register\n\nregister(OwnBackbone)\n"
    )
    register_everything(())
    store = ConfigStore.instance()
    stored = copy.deepcopy(store.repo)

    def forget():
        for part in registry.from_plugins():
            if part.plugin.startswith("lab."):
                del registry._parts[part.kind, part.name]
        for name in ("lab", "lab.parts", "lab.net"):
            registry._plugins.pop(name, None)
            sys.modules.pop(name, None)
        store.repo = copy.deepcopy(stored)

    forget()
    yield forget
    forget()


LOGGER = """
from dataclasses import dataclass
from lightning.pytorch.loggers import CSVLogger
from bbframe.registry import register

@dataclass(frozen=True)
class Options:
    name: str = "mine"
    place: str = "there"

@register("logger", "mine", Options)
def logger(options, folder):
    return CSVLogger(folder, name=options.place, version="")
"""


def test_a_logger_of_ones_own_is_chosen_beside_others(lab, tmp_path, capsys):
    (tmp_path / "lab" / "net.py").write_text(LOGGER)
    words = ["--plugin", "lab.net", "logger=[mine,mlflow]", "logger.mine.place=here", "--cfg", "job", "-p", "logger"]
    assert train.main(words) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {
        "mine": {"name": "mine", "place": "here"},
        "mlflow": {
            "_target_": "lightning.pytorch.loggers.MLFlowLogger",
            "experiment_name": None,
            "run_name": None,
        },
    }


def run_folder(*arguments):
    """The folder of the run that a command line starts."""
    before = set(Path("outputs").rglob("metrics.json"))
    assert train.main(list(arguments)) == 0
    (new,) = set(Path("outputs").rglob("metrics.json")) - before
    return new.parent


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loss_a_head_and_data_of_ones_own_train_and_a_rerun_asks_for_their_plugin(lab, capsys):
    folder = run_folder("--plugin", "lab.parts", *SMALL, *RUN, "trainer.max_epochs=1")
    first = yaml.safe_load((folder / "config.yaml").read_text())
    assert (first["data"]["name"], first["head"]["name"], first["task"]["loss"]["gamma"]) == ("stripes", "max_pool", 3)
    (named,) = json.loads((folder / "environment.json").read_text())["plugins"]
    assert Plugin(**named) == registry.plugins()[0]
    for source in (f"rerun={folder}", f"ckpt_path={folder}/checkpoints/last.ckpt"):
        lab()
        capsys.readouterr()
        assert train.main([source]) == 1
        error = capsys.readouterr().err.strip()
        assert error.endswith("its run used the plugin 'lab.parts'; give it again: --plugin lab.parts")
        assert "\n" not in error
    again = run_folder("--plugin", "lab.parts", f"rerun={folder}", "head.hidden=4")
    second = yaml.safe_load((again / "config.yaml").read_text())
    assert second == {**first, "head": {**first["head"], "hidden": 4}, "rerun": str(folder)}
    assert "head.hidden=4" in yaml.safe_load((again / "overrides.yaml").read_text())
    assert "another file" not in (again / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sweep_repeats_a_run_with_a_plugin_and_a_changed_plugin_is_said(lab, tmp_path, caplog):
    folder = run_folder("--plugin", "lab.parts", *SMALL, *RUN, "trainer.max_epochs=1")
    lab()
    with (tmp_path / "lab" / "parts.py").open("a") as file:
        file.write("\n# another version\n")
    assert train.main(["-m", "--plugin", "lab.parts", f"rerun={folder}", "head.hidden=4,6"]) == 0
    hidden = [
        yaml.safe_load(path.read_text())["head"]["hidden"] for path in Path("outputs").rglob("*/*/*/config.yaml")
    ]
    assert sorted(hidden) == [4, 6]
    assert "the plugin lab.parts is another file" in caplog.text


def test_the_catalog_lists_a_backbone_of_a_plugin(lab, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bbframe", "list", "own", "--plugin", "lab.net", "--json"])
    assert cli.main() == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["backbone"], line["parameters"]) == ("own_net", (3 * 4 + 4) + (4 * 4 * 4 + 4))
    assert [stage["stride"] for stage in line["stages"]] == [1, 2]
