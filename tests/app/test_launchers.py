"""Every launcher runs a sweep over a folder of images with loading workers, and reaches what the basic one reaches."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbframe.app.places import HOME
from tests import slurm_server

pytestmark = pytest.mark.launchers
SWEEP = (
    "-m seed=1,2 backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] data=image_folder "
    "backbone.embedding_size=8 data.root=photos data.image_size=32 data.num_workers=1 data.batch_size=16 "
    "trainer.max_epochs=2 hydra.sweep.dir=s"
).split()


def run(folder: Path, *more: str, environment: dict[str, str] | None = None) -> str:
    """Run the sweep in a process of its own, with one thread a job; returns what it said."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    line = [sys.executable, str(HOME / "train.py"), *SWEEP, *more]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def photos(folder: Path) -> Path:
    """A folder of images in three classes."""
    pixels = np.random.default_rng(0)
    for label in range(3):
        (folder / "photos" / f"class{label}").mkdir(parents=True)
        for number in range(20):
            image = pixels.normal(60 + 70 * label, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / "photos" / f"class{label}" / f"{number}.png")
    return folder


def metrics(folder: Path) -> dict[int, object]:
    found = [json.loads(file.read_text()) for file in (folder / "s").glob("*/metrics.json")]
    return {result["seed"]: (result["val"], result["test"], result["best_epoch"]) for result in found}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = photos(tmp_path_factory.mktemp("basic"))
    run(folder)
    reached = metrics(folder)
    assert sorted(reached) == [1, 2]
    return reached


def needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the extra {extra}")


@pytest.mark.parametrize(
    ("launcher", "module", "extra", "more"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher", "joblib", ["hydra.launcher.n_jobs=2"]),
        ("joblib", "hydra_plugins.hydra_joblib_launcher", "joblib", ["hydra.sweeper.jobs_per_device=2"]),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", "submitit", ["hydra.launcher.timeout_min=10"]),
        ("ray", "hydra_plugins.hydra_ray_launcher", "ray", ["+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_a_launcher_reaches_what_the_basic_one_does(launcher, module, extra, more, expected, tmp_path):
    needs(module, extra)
    said = run(photos(tmp_path), f"hydra/launcher={launcher}", *more)
    assert metrics(tmp_path) == expected
    assert "2 of 2 done" in said


def test_slurm_reaches_what_the_basic_one_does(expected, tmp_path):
    needs("hydra_plugins.hydra_submitit_launcher", "submitit")
    if (reason := slurm_server.why_not()) is not None:
        pytest.skip(reason)
    more = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"]
    with slurm_server.slurm(tmp_path / "slurm") as environment:
        run(photos(tmp_path), *more, environment=environment)
    assert metrics(tmp_path) == expected
