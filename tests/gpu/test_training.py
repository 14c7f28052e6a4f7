"""Whole runs on the device: both tasks in bf16, with averaged weights and activation checkpointing; a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra")
pytest.importorskip("faster_coco_eval")

from bbframe.app import train
from bbframe.tasks.classification import Classification
from tests.gpu.conftest import ASKED

pytestmark = pytest.mark.gpu

SMALL = ["backbone=convnextv2_atto", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,16,24,32]"]
SCENES = ["data.train_scenes=16", "data.val_scenes=4", "data.test_scenes=4", "data.image_size=[64,96]"]
DETECTION = ["task=detection", "head.channels=32", "data.batch_size=4", *SCENES]
MIXED = ["trainer.precision=bf16-mixed", "trainer.ema_decay=0.9", "task.activation_checkpointing=true"]


@pytest.fixture(autouse=True)
def _at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(device, *overrides, status=0):
    """Run a command line on the device; the new run folder."""
    before = set(Path("outputs").rglob("environment.json"))
    accelerator = f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}"
    assert train.main([*SMALL, accelerator, "trainer.devices=1", *overrides]) == status
    (new,) = set(Path("outputs").rglob("environment.json")) - before
    return new.parent


def summary(folder):
    return json.loads((folder / "metrics.json").read_text())


# a minute on two processors, seconds on a GPU
slow_without_gpu = pytest.mark.gpu if ASKED == "cuda" else pytest.mark.slow


def last_weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


@slow_without_gpu
def test_a_classifier_learns_in_bf16(device):
    folder = command(device, "trainer.max_epochs=2", "data.batch_size=64", "optim.lr=0.01", *MIXED)
    found = summary(folder)
    assert found["test"]["accuracy"] > 0.2  # of ten classes
    rows = (folder / "predictions.csv").read_text().splitlines()[1:]
    right = sum(row.split(",")[-5] == row.split(",")[-4] for row in rows)
    assert right / len(rows) == pytest.approx(found["test"]["accuracy"], abs=1e-6)
    held = found["peak_memory_bytes"]
    assert held == torch.cuda.max_memory_allocated() if device.type == "cuda" else held > 0
    assert all(x.isfinite().all() for x in last_weights(folder).values())


@pytest.mark.long
@pytest.mark.parametrize("head", ["fcos", "mask_rcnn"] if ASKED == "cuda" else ["fcos"])
def test_a_detector_trains_in_bf16(device, head):
    mixed = MIXED if head == "fcos" else MIXED[:1]
    folder = command(device, f"head={head}", "trainer.max_epochs=1", *DETECTION, *mixed)
    found = summary(folder)
    assert 0 <= found["test"]["mAP"] <= 1
    assert all(x.isfinite().all() for x in last_weights(folder).values())


@slow_without_gpu
def test_a_run_resumed_in_the_middle_of_an_epoch_ends_like_an_uninterrupted_one(device, monkeypatch):
    steps = ["data.batch_size=256", "backbone.drop_path_rate=0.2", "trainer.max_epochs=2", "test=false"]
    whole = command(device, *steps, "name=whole")

    def unplug(task, outputs, batch, batch_idx):
        if (task.current_epoch, batch_idx) == (1, 1):
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "on_train_batch_end", unplug)
        stopped = command(device, *steps, "name=stopped", status=1)
    resumed = command(device, *steps, f"ckpt_path={stopped}/checkpoints/last.ckpt", "name=resumed")
    expected, found = last_weights(whole), last_weights(resumed)
    assert expected.keys() == found.keys()
    loose = 1e-3 if device.type == "cuda" else 0.0  # a GPU adds up in any order
    for name, value in expected.items():
        far = (found[name].double() - value.double()).norm()
        assert far <= loose * value.double().norm().clamp(min=1), name


def test_batches_lie_in_pinned_memory(device):
    from tests.data.test_loader import noise

    for workers in (0, 2):
        data = noise(num_workers=workers)
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].dtype == torch.float32
        assert batch["image"].is_pinned() == (device.type == "cuda")
        data.teardown("fit")


@pytest.mark.skipif(ASKED != "cuda", reason="a CPU takes minutes to compile")
def test_a_compiled_backbone_trains(device):
    folder = command(device, "trainer.max_epochs=1", "data.batch_size=256", "task.compile=true")
    assert summary(folder)["status"] == "ok"
