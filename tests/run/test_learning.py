"""Architectures learn from scratch: their initialisation and their gradients serve. A minute each: `-m learning`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bbframe.app import train
from tests.tiny import names

HERE = Path(__file__).parents[1] / "presets"  # backbone/tiny_<architecture>.yaml: small enough for two cores
PRESETS = sorted(path.stem for path in HERE.glob("backbone/*.yaml"))


def test_every_preset_is_of_an_architecture():
    assert {preset.removeprefix("tiny_") for preset in PRESETS} <= set(names())


@pytest.mark.learning
@pytest.mark.parametrize("preset", PRESETS)
def test_the_digits_are_read_within_15_epochs(preset, tmp_path):
    options = ["trainer.max_epochs=15", "data.batch_size=16", f"output_dir={tmp_path}"]
    assert train.main(["--config-dir", str(HERE), f"backbone={preset}", *options]) == 0
    (metrics,) = tmp_path.glob("*/*/metrics.json")
    accuracy = json.loads(metrics.read_text())["test"]["accuracy"]
    print(f"{preset}: {accuracy:.4f}")
    assert accuracy >= 0.95
