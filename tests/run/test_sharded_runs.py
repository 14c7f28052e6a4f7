"""Runs whose network is in parts over two processes: as DDP's, resumed otherwise, killed, and used afterwards."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import bbframe
from bbframe.app import cli
from bbframe.app.places import HOME
from bbframe.run.checkpoint import load_checkpoint

pytestmark = pytest.mark.distributed
LINE = (
    "backbone=convnextv2_atto backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,16,24,32] backbone.fast=false "
    "data.num_workers=0 data.batch_size=32 trainer.accelerator=cpu trainer.limit_train_batches=4 trainer.max_epochs=2 "
    "optim=sgd optim.lr=0.05 schedule=constant schedule.warmup_epochs=0"
).split()
TWO, ONE = ["trainer.devices=2"], ["trainer.devices=1"]
PARTS, WHOLE = ["trainer.strategy=fsdp"], ["trainer.strategy=ddp"]


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A run in processes of its own, in a session that can be killed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    line = [sys.executable, str(HOME / "train.py"), *LINE, *more]
    return subprocess.Popen(
        line, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def run(folder: Path, name: str, *more: str, code: int = 0) -> Path:
    """A run to its end, in the folder `name`; returns its folder."""
    process = started(folder, f"hydra.run.dir={name}", *more)
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == code, said[-3000:]
    return folder / name


def rows(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, without what a clock says."""
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v and "seconds" not in k} for row in csv.DictReader(file)]


def assert_same(ours: Path, theirs: Path, tolerance: float = 1e-6) -> None:
    """Two runs have the same losses, metrics, weights and state of the optimizer."""
    for one, other in zip(rows(ours), rows(theirs), strict=True):
        assert one == pytest.approx(other, abs=tolerance)
    tested = [json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs)]
    for key in ("val", "test"):
        assert tested[0][key] == pytest.approx(tested[1][key], abs=tolerance)
    for name in ("last", "best"):
        contents = [load_checkpoint(folder / "checkpoints" / f"{name}.ckpt").content for folder in (ours, theirs)]
        states = [content["state_dict"] for content in contents]
        assert list(states[0]) == list(states[1])
        for key, value in states[0].items():
            torch.testing.assert_close(value, states[1][key], rtol=tolerance, atol=tolerance)
    states = [load_checkpoint(f / "checkpoints" / "last.ckpt").content["optimizer_states"][0] for f in (ours, theirs)]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for number, state in states[0]["state"].items():
        for key, value in state.items():
            other = states[1]["state"][number][key]
            torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance)


OPTIONS = {
    "plain": [],
    "statistics of batches": ["backbone=resnet18", "backbone.hidden_sizes=[8,8,16,16]", "backbone.embedding_size=8"],
    "clipped, accumulated, by layers": [
        "trainer.gradient_clip_val=0.1",
        "trainer.accumulate_grad_batches=2",
        "optim.layer_decay=0.5",
    ],
    "averaged": ["trainer.ema_decay=0.5"],
    "frozen": ["task.freeze=1", "trainer.keep=2"],
    "rounded": ["trainer.precision=bf16-mixed"],
    "recomputed": ["task.activation_checkpointing=true"],
    "detection": [
        "task=detection",
        "data=digit_scenes",
        "head=fcos_small",
        "data.batch_size=2",
        "optim.lr=0.005",
        "trainer.limit_val_batches=2",
        "trainer.limit_test_batches=2",
    ],
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_parts_train_as_the_whole_does(kind, tmp_path):
    ours = run(tmp_path, "parts", *TWO, *PARTS, *OPTIONS[kind])
    theirs = run(tmp_path, "whole", *TWO, *WHOLE, *OPTIONS[kind])
    assert (ours / "checkpoints" / "last.ckpt").is_dir()
    assert (theirs / "checkpoints" / "last.ckpt").is_file()
    assert (ours / "checkpoints" / "best.ckpt").is_file()
    # BatchNorm, and rounding even more, make much of the last bit of a gradient
    assert_same(ours, theirs, {"rounded": 2e-3, "statistics of batches": 1e-5}.get(kind, 1e-6))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def uninterrupted(place):
    return run(place, "uninterrupted", *TWO, *PARTS)


@pytest.fixture(scope="module")
def halves(place):
    """Runs that end after the first of two epochs, by how they ran."""
    return {
        "parts": run(place, "parts", *TWO, *PARTS, "trainer.max_epochs=1"),
        "whole": run(place, "whole", *TWO, *WHOLE, "trainer.max_epochs=1"),
        "alone": run(place, "alone", *ONE, *PARTS, "trainer.max_epochs=1", "data.batch_size=64"),
    }


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("parts", [*TWO, *PARTS]),
        ("parts", [*ONE, *PARTS, "data.batch_size=64"]),
        ("parts", [*TWO, *WHOLE]),
        ("parts", [*ONE, "data.batch_size=64"]),
        ("whole", [*TWO, *PARTS]),
        ("alone", [*TWO, *PARTS]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_run_goes_on_with_other_processes_and_strategies(first, then, halves, uninterrupted, place, request):
    name = f"on_{request.node.callspec.id}".replace("=", "_").replace(".", "_")
    assert_same(run(place, name, f"ckpt_path={halves[first]}", *then), uninterrupted)


def test_a_run_that_is_killed_again_and_again_ends_as_the_uninterrupted(uninterrupted, place):
    more = [*TWO, *PARTS, "trainer.checkpoint_every=1", "hydra.run.dir=killed", "ckpt_path=last"]
    moments, kills = random.Random(18), 0
    folder, last = place / "killed", place / "killed" / "checkpoints" / "last.ckpt"
    while kills < 4:
        process = started(place, *more)
        version = last.stat().st_mtime_ns if last.exists() else None
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == version):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        load_checkpoint(last)  # whole from its first moment
        if (folder / "metrics.json").exists():
            break
    assert kills, "it was never killed"
    run(place, "killed", *TWO, *PARTS, "trainer.checkpoint_every=1", "ckpt_path=last")
    assert_same(folder, uninterrupted)


@pytest.fixture(scope="module")
def stopped(place):
    """A run that a signal has ended within its second epoch."""
    process = started(place, *TWO, *PARTS, "trainer.max_epochs=30", "hydra.run.dir=stopped")
    last = place / "stopped" / "checkpoints" / "last.ckpt"
    while process.poll() is None and not last.exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 75, said[-3000:]
    return place / "stopped"


def test_a_signal_leaves_a_whole_folder_that_goes_on(stopped, place):
    content = load_checkpoint(stopped / "checkpoints" / "last.ckpt").content
    then = content["epoch"] + 2
    whole = run(place, "straight", *TWO, *PARTS, f"trainer.max_epochs={then}")
    on = run(place, "on", *TWO, *PARTS, f"ckpt_path={stopped}", f"trainer.max_epochs={then}")
    assert_same(on, whole)
    alone = run(place, "on_alone", *ONE, f"ckpt_path={stopped}", f"trainer.max_epochs={then}", "data.batch_size=64")
    assert_same(alone, whole)


def test_every_command_reads_the_folder(uninterrupted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    last = uninterrupted / "checkpoints" / "last.ckpt"
    images = [torch.rand(3, 32, 32) for _ in range(2)]
    network = bbframe.load(last)
    network.save_pretrained(tmp_path / "saved")
    again = bbframe.load(tmp_path / "saved")
    state = load_checkpoint(last).content["state_dict"]
    for key, value in network.task.state_dict().items():
        assert torch.equal(value, state[key]), key
    for ours, theirs in zip(again(images), network(images), strict=True):
        torch.testing.assert_close(ours.probabilities, theirs.probabilities, rtol=0, atol=0)
    monkeypatch.setattr(sys, "argv", ["bbframe", "export", f"run={last}", "format=torchscript", "out=one.torchscript"])
    assert cli.main() == 0, capsys.readouterr().err
    assert Path("one.torchscript").is_file()
    plain = run(tmp_path, "tested", f"ckpt_path={last}", "train=false")
    assert json.loads((plain / "metrics.json").read_text())["test_images"] > 0
    assert (run(tmp_path, "again", f"rerun={last}") / "metrics.json").is_file()
