"""A configuration may name what is on the list, and nothing else."""

from __future__ import annotations

import importlib

import pytest

from bbframe.run.lightning_parts import ALLOWED, make_lightning_parts, parse_lightning_parts


def make(group, entries, folder):
    return make_lightning_parts(group, parse_lightning_parts(group, entries), folder)


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "builtins.eval", "lightning.pytorch.callbacks.LambdaCallback"]
)
@pytest.mark.parametrize("group", sorted(ALLOWED))
def test_what_is_not_listed_is_refused_before_it_is_imported(group, target):
    with pytest.raises(ValueError, match=rf"{group}\.x: _target_='{target}' is not on the list"):
        parse_lightning_parts(group, {"x": {"_target_": target}})


@pytest.mark.parametrize("entry", [None, 3, {}, {"_target_": None}, {"_target_": ["os.system"]}])
def test_an_entry_must_name_a_target(entry):
    with pytest.raises(ValueError, match=r"callbacks\.x: must be a mapping with a _target_"):
        parse_lightning_parts("callbacks", {"x": entry})


def test_everything_listed_exists():
    for modules in ALLOWED.values():
        for module, names in modules.items():
            assert all(hasattr(importlib.import_module(module), name) for name in names)


def test_options_are_checked_and_loggers_write_below_the_run(tmp_path):
    monitor = {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor", "logging_interval": "step"}
    (made,) = make("callbacks", {"x": monitor}, tmp_path)
    assert made.logging_interval == "step"
    with pytest.raises(ValueError, match="unknown option 'loging_interval'; did you mean 'logging_interval'"):
        make("callbacks", {"x": {"_target_": monitor["_target_"], "loging_interval": "step"}}, tmp_path)
    (logger,) = make("logger", {"x": {"_target_": "lightning.pytorch.loggers.CSVLogger"}}, tmp_path)
    assert str(tmp_path) in logger.log_dir


def test_a_missing_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger.__init__", _needs_more)
    with pytest.raises(ValueError, match=r"logger\.x: .*TensorBoardLogger needs a package that is not installed"):
        make("logger", {"x": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}}, tmp_path)


def _needs_more(self, save_dir):
    raise ModuleNotFoundError("No module named 'tensorboard'")
