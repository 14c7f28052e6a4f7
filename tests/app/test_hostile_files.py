"""Files of a stranger: none runs code, writes elsewhere, sends a login, or fills memory or time; each is one line."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml

from bbframe.app import execution, train
from bbframe.factory import check_backbone, make_backbone
from bbframe.files import check_yaml, dump_yaml, read_yaml
from bbframe.run.checkpoint import SavedRun
from bbframe.run.lightning_parts import make_lightning_parts, parse_lightning_parts
from bbframe.run.run_log import logging_to
from tests.hub_server import Hub

GLOBAL = "# @package _global_\n"
MEMORY = 400 * 2**20  # the process may grow by less, whatever a file says


@pytest.fixture
def stranger():
    """A server of the stranger's, which must never be asked."""
    with Hub() as hub:
        yield hub
    assert not hub.requests


@pytest.fixture
def at(tmp_path, monkeypatch, stranger):
    """The current folder, with `out` beside it; afterwards nothing was done that a file may not do."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a1B2" * 8)
    monkeypatch.setattr("webbrowser.open", lambda *_: None)
    before, memory, started = dict(os.environ), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield here
    changed = {key for key in before.keys() | os.environ if before.get(key) != os.environ.get(key)}
    assert changed <= {"PYTEST_CURRENT_TEST", "BBFRAME_RUN_FOLDER"}
    os.environ.pop("BBFRAME_RUN_FOLDER", None)
    assert "antigravity" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    assert {path.name for path in here.iterdir()} <= {"mine", "outputs", "first"}
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MEMORY
    assert time.process_time() - started < 20


@pytest.fixture
def done(monkeypatch):
    """The jobs that would have run; nothing is trained."""
    jobs = []

    def execute(job, secrets):
        jobs.append(job)
        (job.folder / "metrics.json").write_text('{"status": "failed"}')

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr("bbframe.sweep.leaderboard.write", lambda folder: "the table")
    return jobs


def one_line(text):
    assert text.startswith("error: "), text
    assert "\n" not in text
    assert "Traceback" not in text
    assert not {"\x1b", "\r", "\x07"} & set(text)
    return text


# recipes: the files below --config-dir, the command line behind it, and what the refusal says (None: harmless)

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SEARCH = "hydra: {searchpath: ['pkg://antigravity']}\n"
X = "recipes=x"
RECIPES = {
    "a search path": ({"first.yaml": "defaults: [config, _self_]\n" + SEARCH}, "-cn first", "hydra.searchpath"),
    "a search path, by suffix": (
        {"first.yaml": "defaults: [config, _self_]\n" + SEARCH},
        "-cn first.yaml",
        "hydra.searchpath",
    ),
    "a search path, in a folder": (
        {"a/first.yaml": "defaults: [/config, _self_]\n" + SEARCH},
        "-cn a/first",
        "hydra.searchpath",
    ),
    "a search path, by a header": (
        {"first.yaml": "# @package hydra\ndefaults: [/config@_global_, _self_]\nsearchpath: ['pkg://antigravity']\n"},
        "-cn first",
        None,
    ),
    "a search path, below the primary": ({"recipes/x.yaml": GLOBAL + SEARCH}, X, "searchpath"),
    "a search path, of a base": (
        {"first.yaml": "defaults: [base, _self_]\n", "base.yaml": "defaults: [config, _self_]\n" + SEARCH},
        "-cn first",
        "searchpath",
    ),
    "params by the mode": (
        {
            "recipes/x.yaml": GLOBAL + "evil: {RUN: {seed: 1}, MULTIRUN: {+hydra.job.env_set.EVIL: bad}}\n"
            "hydra: {sweeper: {params: '${evil.${hydra.mode}}'}}\n"
        },
        f"-m {X}",
        "hydra.mode",
    ),
    "params by oc.create": (
        {"recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: \"${oc.create:{'+hydra.job.chdir':true}}\"}}\n"},
        f"-m {X}",
        "mismatched input",
    ),
    "params elsewhere": (
        {"recipes/x.yaml": GLOBAL + "evil: {+hydra.job.chdir: true}\nhydra: {sweeper: {params: '${evil}'}}\n"},
        f"-m {X}",
        "'+hydra.job.chdir'",
    ),
    "output_dir in params": (
        {"recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {output_dir: '../out,../out2'}}}\n"},
        f"-m {X}",
        "'output_dir'",
    ),
    "a billion runs": (
        {"recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {seed: 'range(1,1000000000)'}}}\n"},
        f"-m {X}",
        "more than 10000 values",
    ),
    "a billion shuffled runs": (
        {"recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {seed: 'shuffle(range(0,1,1e-9))'}}}\n"},
        f"-m {X}",
        "more than 10000 values",
    ),
    "a product of runs": (
        {
            "recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {seed: 'range(1,999)', 'optim.lr': 'range(1,999)', "
            "'data.batch_size': 'range(1,999)'}}}\n"
        },
        f"-m {X}",
        "at most 10000; list fewer",
    ),
    "more in a value": (
        {"recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {seed: '1 +hydra.job.env_set.EVIL=1'}}}\n"},
        f"-m {X}",
        "must be an integer",
    ),
    "a group in params": (
        {
            "recipes/x.yaml": GLOBAL + "hydra: {sweeper: {params: {'+evil@_global_': y}}}\n",
            "evil/y.yaml": "hydra: {job: {env_set: {EVIL: bad}}}\n",
        },
        f"-m {X}",
        "hydra.job.env_set.EVIL",
    ),
    "hydra as an interpolation": (
        {"recipes/x.yaml": GLOBAL + "evil: {job: {env_set: {EVIL: bad}}}\nhydra: ${evil}\n"},
        X,
        "recipes/x",
    ),
    "job as an interpolation": (
        {"recipes/x.yaml": GLOBAL + "evil: {env_set: {EVIL: bad}}\nhydra: {job: '${evil}'}\n"},
        X,
        "recipes/x",
    ),
    "nothing in the environment": (
        {"recipes/x.yaml": GLOBAL + "hydra: {job: {env_set: {PATH: null}}}\n"},
        X,
        "hydra.job.env_set.PATH",
    ),
    "an empty callback": ({"recipes/x.yaml": GLOBAL + "hydra: {callbacks: {x: null}}\n"}, X, "hydra.callbacks.x"),
    "nested defaults": (
        {"recipes/x.yaml": GLOBAL + "defaults: [/evil/y@_global_.hydra.job]\n", "evil/y.yaml": "env_set: {A: b}\n"},
        X,
        "hydra.job.env_set.A",
    ),
    "another logging": (
        {"recipes/x.yaml": GLOBAL + "defaults: [{override /hydra/hydra_logging: default}]\n"},
        X,
        "hydra.hydra_logging",
    ),
    "a runtime": ({"recipes/x.yaml": GLOBAL + "hydra: {runtime: {output_dir: ../out}}\n"}, X, "output_dir"),
    "output_dir elsewhere": ({"recipes/x.yaml": GLOBAL + "output_dir: /elsewhere\n"}, X, "type output_dir=/elsewhere"),
    "output_dir above": ({"recipes/x.yaml": GLOBAL + "output_dir: a/../../out\n"}, X, "output_dir=a/../../out leads"),
    "output_dir at home": ({"recipes/x.yaml": GLOBAL + "output_dir: ~/out\n"}, X, "output_dir=~/out leads"),
    "output_dir from the environment": (
        {"recipes/x.yaml": GLOBAL + "output_dir: ${oc.env:HOME}/out\n"},
        X,
        "leads out of the current folder",
    ),
    "output_dir of a primary file": (
        {"first.yaml": "defaults: [config, _self_]\noutput_dir: ../out\n"},
        "-cn first",
        "output_dir=../out leads",
    ),
    "a name with slashes": ({"recipes/x.yaml": GLOBAL + "name: ../../../out\n"}, X, "no slashes"),
    "a name with escapes": ({"recipes/x.yaml": GLOBAL + 'name: "a\\nb\\e[2J"\n'}, X, "name="),
    "a task with slashes": ({"recipes/x.yaml": GLOBAL + "task: {name: ../../../out}\n"}, X, "task: name="),
    "a subfolder by a name": (
        {
            "recipes/x.yaml": GLOBAL
            + "backbone_name: '..'\nhydra: {sweep: {subdir: '${bbframe.backbone:}/../${seed}'}}\n"
        },
        f"-m {X} seed=1,2",
        "no slashes",
    ),
    "a run folder by an option": (
        {"recipes/x.yaml": GLOBAL + "hydra: {run: {dir: '${output_dir}/../../${seed}'}}\n"},
        X,
        "hydra.run.dir must lead below output_dir",
    ),
    "a bomb of aliases": ({"recipes/x.yaml": GLOBAL + BOMB}, X, "its aliases repeat too much"),
    "a bomb in a primary file": ({"first.yaml": "defaults: [config]\n" + BOMB}, "-cn first", "aliases repeat"),
    "merge keys": (
        {"recipes/x.yaml": GLOBAL + BOMB.replace("[x, x, x, x, x, x, x, x, x]", "{x: 1}").replace("&b [", "&b [*a, ")},
        X,
        "aliases repeat",
    ),
    "an alias of itself": ({"recipes/x.yaml": GLOBAL + "a: &a [*a]\n"}, X, "*a stands inside of itself"),
    "deep lists": ({"recipes/x.yaml": GLOBAL + "a: " + "[" * 5000 + "]" * 5000}, X, "nested deeper than"),
    "deep mappings": ({"recipes/x.yaml": GLOBAL + "a: " + "{a: " * 5000 + "1" + "}" * 5000}, X, "nested deeper"),
    "a deep block": ({"recipes/x.yaml": GLOBAL + "".join(" " * i + "a:\n" for i in range(900))}, X, "nested deeper"),
    "a constructor": (
        {"recipes/x.yaml": GLOBAL + "a: !!python/object/apply:os.system ['touch ../evil']\n"},
        X,
        "could not determine a constructor",
    ),
    "a class of Python": ({"recipes/x.yaml": GLOBAL + "a: !!python/name:os.system\n"}, X, "constructor"),
    "a target": ({"recipes/x.yaml": GLOBAL + "optim: {_target_: os.system}\n"}, X, "names no code"),
    "a deep target": ({"recipes/x.yaml": GLOBAL + "data: {transforms: [{_target_: os.system}]}\n"}, X, "no code"),
    "a target in a backbone": ({"recipes/x.yaml": GLOBAL + "backbone: {_target_: os.system}\n"}, X, "_target_"),
    "defaults of itself": ({"recipes/x.yaml": "defaults: [x]\n"}, X, "lead back to itself"),
    "defaults in a ring": (
        {"recipes/x.yaml": "defaults: [y]\n", "recipes/y.yaml": "defaults: [x]\n"},
        X,
        "lead back to itself",
    ),
    "a value of itself": ({"recipes/x.yaml": GLOBAL + "seed: ${seed}\n"}, X, "Recursive interpolation"),
    "values in a ring": (
        {"recipes/x.yaml": GLOBAL + "name: ${backbone_name}\nbackbone_name: ${name}\n"},
        X,
        "Recursive interpolation",
    ),
    "values that double": (
        {"recipes/x.yaml": GLOBAL + "".join(f"a{i}: '${{a{i + 1}}}${{a{i + 1}}}'\n" for i in range(9)) + "a9: lol\n"},
        X,
        "unknown option",
    ),
    "a resolver": ({"recipes/x.yaml": GLOBAL + "name: ${eval:1}\n"}, X, "Unsupported interpolation type eval"),
    "bytes": ({"recipes/x.yaml": "\x00\x01"}, X, "not allowed"),
    "a file above": ({"recipes/x.yaml": GLOBAL + "defaults: [/backbone/../../y@_global_]\n"}, X, "no such file"),
    "a plugin beside it": (
        {"hydra_plugins/evil.py": "import antigravity\n", "recipes/x.yaml": GLOBAL + "seed: 3\n"},
        X,
        None,
    ),
    "a module beside it": ({"bbframe.py": "import antigravity\n", "recipes/x.yaml": "seed: 3\n"}, X, "unknown option"),
    "a logger elsewhere": (
        {"recipes/x.yaml": GLOBAL + "logger: {x: {_target_: lightning.pytorch.loggers.CSVLogger, save_dir: /x}}\n"},
        X,
        "logger.x: save_dir=/x must lead below the run folder",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_data(name, at, done, capsys):
    files, line, said = RECIPES[name]
    for file, text in files.items():
        path = at / "mine" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = train.main(["-cd", "mine", *line.split()])
    error = capsys.readouterr().err.strip()
    assert code == (said is not None)
    if said is None:
        assert error == ""
        (job,) = done
        assert job.folder.resolve().is_relative_to(at / "outputs")
    else:
        assert said in one_line(error)
        assert not done


# records and checkpoints

CSV = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
RECORDS = {
    "a logger elsewhere": ({"logger": {"x": {**CSV, "save_dir": "/x"}}}, [], "must lead below the run folder"),
    "a logger above": ({"logger": {"x": {**CSV, "name": "../../x"}}}, [], "must lead below the run folder"),
    "a class": ({"logger": {"x": {"_target_": "os.system"}}}, [], "is not on the list"),
    "a search path": ({}, ["hydra.searchpath=[pkg://antigravity]"], "its record sets hydra.searchpath"),
    "the environment": ({}, ["+hydra.job.env_set.EVIL=bad"], "its record sets hydra.job.env_set.EVIL"),
    "a relocated group": ({}, ["+recipes@hydra.job=x"], "its record sets recipes"),
    "a number": ({}, [3], "must be a list of texts"),
    "a mapping": ({}, [{"a": 1}], "must be a list of texts"),
    "no override": ({}, ["what is this"], "what is this"),
    "a task with slashes": ({"task": {"name": "../../out"}}, [], "task: name="),
    "a name with slashes": ({"name": "../../out"}, [], "no slashes"),
    "a group of text": ({"trainer": "x"}, [], "trainer"),
    "an unknown plugin": ({"plugins": [{"module": "antigravity", "sha256": ""}]}, [], "give it again: --plugin"),
    "plugins of text": ({"plugins": "antigravity"}, [], "does not name its plugins"),
    "plugins without a module": ({"plugins": [{}]}, [], "does not name its plugins"),
    "an environment of a list": ({"environment": "[1]"}, [], "does not name its plugins"),
    "a deep environment": ({"environment": "[" * 100_000}, [], "does not name its plugins"),
    "a bomb": ({"config": BOMB}, [], "aliases repeat too much"),
    "an alias of itself": ({"config": "a: &a [*a]\n"}, [], "stands inside of itself"),
    "a constructor": ({"config": "a: !!python/object/apply:os.system [ls]\n"}, [], "cannot be read as YAML"),
    "a date": ({"config": "a: 2026-99-99\n"}, [], "cannot be read as YAML"),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The configuration of a run, as its record holds it."""
    from bbframe.app.composition import composition, plain_data

    with composition() as compose:
        return plain_data(compose, [])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_data(name, recorded, at, done, capsys):
    changes, overrides, said = RECORDS[name]
    (at / "first").mkdir()
    environment = {"plugins": changes.get("plugins", [])}
    (at / "first" / "environment.json").write_text(changes.get("environment", json.dumps(environment)))
    config = {**recorded, **{key: value for key, value in changes.items() if key in recorded}}
    (at / "first" / "config.yaml").write_text(changes.get("config", dump_yaml(config)))
    (at / "first" / "overrides.yaml").write_text(dump_yaml(overrides))
    assert train.main(["rerun=first", "seed=3"]) == 1
    assert said in one_line(capsys.readouterr().err.strip())
    assert not done


@pytest.mark.long
@pytest.mark.parametrize("line", [[], ["output_dir=outputs/mine"]])
def test_a_record_does_not_say_where_a_run_writes(line, recorded, at, done):
    (at / "first").mkdir()
    (at / "first" / "config.yaml").write_text(dump_yaml({**recorded, "output_dir": "/elsewhere"}))
    (at / "first" / "overrides.yaml").write_text(dump_yaml(["output_dir=/elsewhere", "seed=4"]))
    assert train.main(["rerun=first", *line]) == 0
    (job,) = done
    assert (job.config["output_dir"], job.config["rerun"]) == ("outputs/mine" if line else "outputs", "first")
    assert job.folder.resolve().is_relative_to(at / job.config["output_dir"])
    assert job.overrides == ["seed=4", *line]


def saved(**changes):
    names = ("config", "overrides", "plugins", "class_names", "category_ids", "backbone", "preprocessing", "inputs")
    content: dict = {"state_dict": {}}
    SavedRun(**{**{name: {} for name in names}, "overrides": [], "plugins": [], **changes}).put(content, [])
    return content


class Evil:
    def __reduce__(self):
        return os.system, ("touch ../evil",)


CHECKPOINTS = {
    "code": ({"bbframe": Evil()}, "more than tensors and plain containers"),
    "nested code": (saved(config={"a": [Evil()]}), "more than tensors and plain containers"),
    "a list": ([1, 2], "it is not a checkpoint of bbframe"),
    "a config of text": (saved(config="x"), "it is not a checkpoint of bbframe"),
    "overrides of numbers": (saved(overrides=[1]), "it is not a checkpoint of bbframe"),
    "a tensor as config": (saved(config=torch.ones(2)), "it is not a checkpoint of bbframe"),
    "plugins of text": (saved(plugins="antigravity"), "does not name its plugins"),
    "a plugin": (saved(plugins=[{"module": "antigravity", "sha256": ""}]), "give it again: --plugin antigravity"),
    "overrides of Hydra's": (saved(overrides=["hydra.searchpath=[pkg://antigravity]"]), "its record sets"),
    "an empty config": (saved(config=OrderedDict()), "is missing"),
}


@pytest.mark.parametrize("source", ["rerun", "ckpt_path"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_data(name, source, at, done, capsys):
    content, said = CHECKPOINTS[name]
    (at / "first").mkdir()
    torch.save(content, at / "first" / "last.ckpt")
    assert train.main([f"{source}=first/last.ckpt"]) == 1
    assert said in one_line(capsys.readouterr().err.strip())
    assert not done


@pytest.mark.long
def test_a_checkpoint_that_expands_is_refused_unread(at, done, capsys):
    (at / "first").mkdir()
    with zipfile.ZipFile(at / "first" / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 300_000_000)
    assert train.main(["rerun=first/last.ckpt"]) == 1
    assert "expands" in one_line(capsys.readouterr().err.strip())


# what a configuration may say to a logger, and to timm

LOGGERS = [
    ("CSVLogger", {"save_dir": "../x"}),
    ("CSVLogger", {"save_dir": "~/x"}),
    ("CSVLogger", {"save_dir": "file:///x"}),
    ("CSVLogger", {"name": "/x"}),
    ("CSVLogger", {"version": "a/../../../x"}),
    ("CSVLogger", {"version": "a::file://x"}),
    ("TensorBoardLogger", {"sub_dir": "../../x"}),
    ("TensorBoardLogger", {"log_dir": "/x"}),
    ("TensorBoardLogger", {"filename_suffix": "/../../x"}),
    ("WandbLogger", {"dir": "/x"}),
    ("WandbLogger", {"settings": {"base_url": "http://evil"}}),
    ("WandbLogger", {"experiment": {}}),
    ("MLFlowLogger", {"tracking_uri": "http://evil"}),
    ("MLFlowLogger", {"artifact_location": "/x"}),
    ("CometLogger", {"url": "http://evil"}),
]


@pytest.mark.parametrize(("logger", "options"), LOGGERS, ids=str)
def test_a_logger_writes_below_the_run_and_sends_nothing_elsewhere(logger, options):
    with pytest.raises(ValueError, match=r"^logger\.x: ") as caught:
        parse_lightning_parts("logger", {"x": {"_target_": f"lightning.pytorch.loggers.{logger}", **options}})
    assert "\n" not in str(caught.value)
    assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("save_dir", [None, "logs", "a/b"])
def test_a_logger_may_say_where_below_the_run(save_dir, tmp_path):
    options = {} if save_dir is None else {"save_dir": save_dir}
    (made,) = make_lightning_parts("logger", parse_lightning_parts("logger", {"x": {**CSV, **options}}), tmp_path)
    assert Path(made.log_dir).is_relative_to(tmp_path / (save_dir or ""))


@pytest.mark.parametrize("options", [{"logging_interval": "never"}, {"log_momentum": 1, "logging_interval": 3}])
def test_options_that_lightning_refuses_are_one_line(options, tmp_path):
    entry = {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor", **options}
    with pytest.raises(ValueError, match=r"^callbacks\.x: .*refuses its options: .+") as caught:
        make_lightning_parts("callbacks", parse_lightning_parts("callbacks", {"x": entry}), tmp_path)
    assert "\n" not in str(caught.value)


TIMM = {"model_type": "timm_backbone", "backbone": "resnet18"}
BACKBONES = [
    {"model_type": "resnet", "pretrained": True, "checkpoint": "{url}/x/y"},
    {"model_type": "resnet", "pretrained": True, "checkpoint": "file:///etc/passwd"},
    {"model_type": "resnet", "pretrained": True, "checkpoint": "../../etc"},
    {"model_type": "resnet", "cache_dir": "/x"},
    {"model_type": "resnet", "auto_map": {"AutoBackbone": "evil--evil.Evil"}},
    {"model_type": "resnet", "trust_remote_code": True},
    {**TIMM, "model_args": {"pretrained_cfg": {"url": "{url}"}}},
    {**TIMM, "model_args": {"pretrained_cfg_overlay": {"url": "{url}"}}},
    {**TIMM, "model_args": {"checkpoint_path": "/x"}},
    {**TIMM, "model_args": {"cache_dir": "/x"}},
    {**TIMM, "model_args": {"act_layer": "os.system"}},
    {**TIMM, "backbone": "hf-hub:evil/x"},
    {**TIMM, "backbone": "local-dir:/x"},
]


@pytest.mark.parametrize("options", BACKBONES, ids=str)
def test_a_backbone_fetches_nothing_from_elsewhere(options, at, stranger):
    text = json.dumps(options).replace("{url}", stranger.url)
    with pytest.raises(ValueError, match=r".") as caught:
        make_backbone(check_backbone(json.loads(text)))
    assert len(str(caught.value)) < 1500


# names of files on a terminal and in a log


ESCAPES = ["\x1b[2J.jpg", "\x1b]0;title\x07.jpg", "a\rb.jpg", "\u202egpj.exe", "\x9b2J", "\x00"]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_of_a_file_moves_the_cursor(name, tmp_path, capsys):
    with logging_to(tmp_path / "train.log"):
        logging.getLogger("bbframe").warning("skipped %s: broken", name)
    train.exit_code(_raise, [name])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err, (tmp_path / "train.log").read_text()):
        assert "\\" in text
        assert name not in text


def _raise(arguments):
    raise ValueError(f"{arguments[0]} cannot be read")


# YAML has bounds, and what is written by hand stays within them


@pytest.mark.long
def test_ordinary_yaml_passes(tmp_path):
    file = tmp_path / "a.yaml"
    text = "a: &a {lr: 1, b: &b [1, 2]}\nc: {<<: *a, d: *b}\n" + "".join(f"k{i}: [{i}, x]\n" for i in range(2000))
    file.write_text(text)
    check_yaml(file)
    assert read_yaml(file, dict) == yaml.safe_load(text)
    file.write_text("x" * 10_000_001)
    with pytest.raises(ValueError, match="has 10000001 bytes"):
        check_yaml(file)
    check_yaml(tmp_path / "nothing.yaml")
