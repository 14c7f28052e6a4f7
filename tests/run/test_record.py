"""The record of a run: no secret in it, nothing about the user, and everything needed to repeat the run."""

import dataclasses
import getpass
import json
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import torch

from bbframe.files import atomic, write_text
from bbframe.run import record
from bbframe.run.checkpoint import SavedRun
from bbframe.run.masking import mask_overrides, mask_secrets, masked_keys
from bbframe.run.record import environment, read_record, write_record

SECRET_NAMES = [
    "token", "hf_token", "HF_TOKEN", "hub-token", "accessToken", "apiKey", "api_key", "apikey", "wandb_api_key",
    "password", "db_password", "secret", "client_secret", "aws_secret_access_key", "access_key", "credential",
    "credentials", "authorization", "Authorization",
]  # fmt: skip
PLAIN_NAMES = [
    "num_tokens", "num_register_tokens", "class_token", "use_mask_token", "cls_token", "tokenizer",
    "token_mixer", "pad_token_id", "keys", "secretary", "author", "monkey",
]  # fmt: skip
CONFIG = {
    "seed": 1,
    "name": "café",
    "tags": ["1e5", "yes", "null", "a: b", "# c", ""],
    "backbone": {"out_indices": [1, 3], "revision": "1234e56", "checkpoint": None, "sizes": [[1, 2], [3, 4]]},
    "optim": {"lr": 1e-05, "betas": [0.9, 0.999], "name": "adamw", "clip": float("inf"), "decay": 3.0},
    "train": True,
    "empty": {"list": [], "mapping": {}},
}

EMPTY = {field.name: {} for field in dataclasses.fields(SavedRun)}


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_key_that_names_a_secret_is_masked(name):
    config = {"logger": [{name: "xyz123"}], "deep": {name: {"user": "xyz123", "pins": [123]}}, name: 123}
    masked = mask_secrets(config)
    assert "123" not in str(masked)
    assert masked_keys(masked) == [f"logger.0.{name}", f"deep.{name}.user", f"deep.{name}.pins.0", name]
    assert config[name] == 123
    assert config["deep"][name]["pins"] == [123]
    for override in (f"{name}=xyz123", f"+a.b.{name}=xyz123", f"++a.{name}='xyz,123'", f"a={{x:1,{name}: xyz123}}"):
        assert "123" not in mask_overrides([override])[0]
        assert "***" in mask_overrides([override])[0]


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_key_that_only_looks_like_one_stays(name):
    assert mask_secrets({name: "value", "a": {name: 196}}) == {name: "value", "a": {name: 196}}
    lines = [f"a.{name}=196", f"~{name}", f"a={{{name}: 3}}"]
    assert mask_overrides(lines) == lines


@pytest.mark.parametrize("value", [None, True, False, ""])
def test_a_secret_that_was_not_given_needs_no_mask(value):
    assert mask_secrets({"token": value}) == {"token": value}
    assert masked_keys({"token": value}) == []


def test_literal_secrets_and_logins_are_masked_wherever_they_are():
    config = {"uri": "http://u:pw@host/x", "path": "/data/s3cret/x", "whole": "ab", "part": "cab", "n": [("s3cret",)]}
    masked = mask_secrets(config, secrets={"s3cret", "ab", ""})
    assert masked == {"uri": "http://***@host/x", "path": "/data/***/x", "whole": "***", "part": "cab", "n": [["***"]]}
    assert mask_overrides(["a.path=/x/s3cret"], secrets={"s3cret"}) == ["a.path=/x/***"]


def test_a_record_reads_back_what_was_written(tmp_path):
    overrides = ["backbone.out_indices=[1,3]", "tags=[a: b]", "+x='é\n'"]
    write_record(tmp_path, CONFIG, overrides, {"seed": 1})
    assert read_record(tmp_path) == (CONFIG, overrides)
    text = (tmp_path / "config.yaml").read_text()
    assert "out_indices: [1, 3]" in text
    assert text.index("seed") < text.index("backbone") < text.index("train:")
    assert json.loads((tmp_path / "environment.json").read_text()) == {"seed": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "environment.json", "overrides.yaml"]


def test_a_number_that_a_person_wrote_is_a_number(tmp_path):
    (tmp_path / "config.yaml").write_text("lr: 1e-3\nrevision: '12e4'\n")
    assert read_record(tmp_path) == ({"lr": 0.001, "revision": "12e4"}, [])


def test_a_record_holds_no_secret(tmp_path):
    write_record(tmp_path, {"hub": {"token": "xyz123"}}, ["hub.token=xyz123"], {})
    assert not any("xyz123" in path.read_text() for path in tmp_path.iterdir())
    config, _ = read_record(tmp_path)
    assert masked_keys(config) == ["hub.token"]


def test_a_checkpoint_holds_the_record(tmp_path):
    content: dict = {"state_dict": {"w": torch.ones(1000)}}
    SavedRun(**{**EMPTY, "config": CONFIG, "overrides": ["seed=1"]}).put(content, ["w"])
    torch.save(content, tmp_path / "last.ckpt")
    assert read_record(tmp_path / "last.ckpt") == (CONFIG, ["seed=1"])
    data = bytearray((tmp_path / "last.ckpt").read_bytes())
    data[data.index(b"1234e56")] ^= 1
    (tmp_path / "bad.ckpt").write_bytes(data)
    with pytest.raises(ValueError, match=r"bad\.ckpt is damaged \(the checksum of .*\); .*last\.ckpt is whole"):
        read_record(tmp_path / "bad.ckpt")


def break_nothing(folder):
    return folder / "2026-01-02_03-04-05_resnat"


def break_yaml(folder):
    write_text(folder / "config.yaml", "a: [1,\nb: }")
    return folder


def break_kind(folder):
    write_text(folder / "config.yaml", "- a\n")
    return folder


def no_record(folder):
    (folder / "2026-01-02_03-04-05_resnet" / "config.yaml").write_text("a: 1\n")
    return folder


def truncate(folder):
    torch.save({"bbframe": {"config": {}, "overrides": []}}, folder / "last.ckpt")
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-20])
    return folder / "last.ckpt"


def foreign(folder):
    torch.save({"state_dict": {}}, folder / "last.ckpt")
    return folder / "last.ckpt"


def unsafe(folder):
    torch.save({"bbframe": Path("x")}, folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (break_nothing, "there is no '2026-01-02_03-04-05_resnat' in .*; closest there: 2026-01-02_03-04-05_resnet"),
        (lambda folder: folder / "nowhere" / "run", "there is no 'nowhere' in"),
        (no_record, "holds no config.yaml; run folders in it: 2026-01-02_03-04-05_resnet"),
        (break_yaml, "config.yaml: cannot be read as YAML: .*line 2"),
        (break_kind, "config.yaml: must hold a mapping, not list"),
        (truncate, "last.ckpt is truncated, or not a checkpoint"),
        (foreign, "last.ckpt does not say how .*: it is not a checkpoint of bbframe"),
        (unsafe, "last.ckpt holds more than tensors and plain containers"),
    ],
)
def test_a_record_that_cannot_be_read_says_why_in_one_line(tmp_path, prepare, says):
    (tmp_path / "2026-01-02_03-04-05_resnet").mkdir()
    source = prepare(tmp_path)
    with pytest.raises(ValueError, match=says) as caught:
        read_record(source)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def interrupted():
        with atomic(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_the_environment_is_complete_plain_and_anonymous():
    weights = {"revision": "abc", "sha256": "def"}
    found = environment(7, weights)
    text = json.dumps(found)
    assert found["seed"] == 7
    assert found["weights"] == weights
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert found["versions"]["python"] == platform.python_version()
    assert found["hardware"]["cores"] >= 1
    assert 0.1 < found["hardware"]["memory_gib"] < 1e5
    assert datetime.fromisoformat(found["time"]).tzinfo is not None
    for name in (str(Path.home()), os.getcwd(), platform.node()):
        assert len(name) < 4 or name not in text
    assert getpass.getuser() == "root" or f"/{getpass.getuser()}" not in text


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one commit that holds a copy of nothing but the place of record.py."""
    place = tmp_path / "bbframe" / "run"
    place.mkdir(parents=True)
    (place / "record.py").write_text("")
    monkeypatch.setattr(record, "__file__", str(place / "record.py"))
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_the_commit_of_the_code_is_recorded(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    clean = environment(0, None)["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (checkout / "bbframe" / "new.py").write_text("")
    assert environment(0, None)["git"] == {"commit": clean["commit"], "dirty": True}


def test_another_project_that_holds_the_package_is_not_its_code(checkout, monkeypatch):
    place = checkout / ".venv" / "bbframe" / "run"
    place.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(place / "record.py"))
    assert environment(0, None)["git"] is None


def test_no_git_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment(0, None)["git"] is None
