"""Command lines that train, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path

from bbframe.app import train

TINY = [
    "backbone=convnextv2_atto",
    "backbone.depths=[1,1,1,1]",
    "backbone.hidden_sizes=[8,16,24,32]",
    "trainer.max_epochs=2",
    "data.batch_size=256",
    "optim.lr=0.01",
]


def command(*overrides: str) -> Path:
    """Run a command line in the current directory; the new run folder."""
    before = set(Path("outputs").rglob("metrics.json"))
    assert train.main(list(overrides)) == 0
    (new,) = set(Path("outputs").rglob("metrics.json")) - before
    return new.parent.resolve()


def summary(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())
