"""Every architecture learns from scratch: its initialisation and its gradients serve. Minutes each: `-m learning`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import train

from .tiny import names

PRESETS = Path(__file__).parent / "presets"  # backbone/tiny_<architecture>.yaml: small enough for two cores


def test_every_architecture_has_a_preset():
    assert {path.stem for path in PRESETS.glob("backbone/*.yaml")} == {f"tiny_{name}" for name in names()}


@pytest.mark.learning
@pytest.mark.parametrize("name", names())
def test_the_digits_are_read_within_15_epochs(name, tmp_path):
    options = ["trainer.max_epochs=15", "data.batch_size=16", f"output_dir={tmp_path}"]
    assert train.main(["--config-dir", str(PRESETS), f"backbone=tiny_{name}", *options]) == 0
    (metrics,) = tmp_path.glob("*/*/metrics.json")
    assert json.loads(metrics.read_text())["test"]["test/accuracy"] >= 0.95
