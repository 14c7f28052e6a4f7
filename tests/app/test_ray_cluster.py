"""A sweep on a Ray cluster of three nodes that loses its driver, then a node: every job ends, none is done twice."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bbframe.app.places import HOME

pytestmark = pytest.mark.launchers
SWEEP = (
    "-m seed=1,2,3 backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] data=digits "
    "backbone.embedding_size=8 data.num_workers=0 data.batch_size=16 trainer.checkpoint_every=5 trainer.max_epochs=4 "
    "hydra.sweep.dir=s"
).split()
STORE = 100 * 2**20  # bytes of each node's object store
PATIENCE = 600.0  # seconds, on a machine that does other things


def started(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """The sweep in a session of its own; what it says is added to said.txt."""
    with (folder / "said.txt").open("ab") as said:
        line = [sys.executable, str(HOME / "train.py"), *SWEEP, *more]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(line, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True)


def ended(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(PATIENCE) == 0, (folder / "said.txt").read_text()[-4000:]


def results(folder: Path) -> dict[int, Any]:
    found = [json.loads(file.read_text()) for file in (folder / "s").glob("*/metrics.json")]
    return {run["seed"]: (run["val"], run["test"], run["best_epoch"], run["epochs"]) for run in found}


def holder(lock: Path) -> int | None:
    """The process that holds the lock of a job."""
    number = lock.stat().st_ino if lock.exists() else None
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "POSIX" and words[5].rpartition(":")[2] == str(number):
            return int(words[4])
    return None


def ancestors(process: int) -> Iterator[int]:
    while process > 1:
        yield process
        stat = Path(f"/proc/{process}/stat")
        if not stat.exists():
            return
        process = int(stat.read_text().rpartition(")")[2].split()[1])


def wait_for(found: Any, process: subprocess.Popen[bytes]) -> Any:
    """What `found` gives at last, while a process runs."""
    limit = time.monotonic() + PATIENCE
    while not (value := found()):
        assert process.poll() is None, "the sweep has ended before"
        assert time.monotonic() < limit
        time.sleep(0.05)
    return value


@pytest.fixture
def cluster(monkeypatch):
    if any(importlib.util.find_spec(name) is None for name in ("ray", "hydra_plugins.hydra_ray_launcher")):
        pytest.skip("needs the extra ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    finally:
        cluster.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_sweep_outlives_its_driver_and_a_node(cluster, tmp_path):
    ray, nodes = cluster
    plain, folder = tmp_path / "plain", tmp_path / "on ray"
    for place in (plain, folder):
        place.mkdir()
    ended(started(plain), plain)
    expected = results(plain)
    assert sorted(expected) == [1, 2, 3]

    launcher = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={ray.address}"]
    driver = started(folder, *launcher)
    wait_for(lambda: any((folder / "s").glob("*/checkpoints/last.ckpt")), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    locks = [*(folder / "s").glob("*/.lock")]
    limit = time.monotonic() + PATIENCE
    while any(holder(lock) for lock in locks):  # Ray ends the tasks of a driver that is gone
        assert time.monotonic() < limit
        time.sleep(0.05)

    driver = started(folder, *launcher)
    places = {node.all_processes["raylet"][0].process.pid: node for node in nodes}

    def job_on_a_node() -> Any:
        """A job that trains on a node that can be removed, the node, and the job's process."""
        for last in (folder / "s").glob("*/checkpoints/last.ckpt"):
            job = last.parent.parent
            process = holder(job / ".lock")
            node = next((places[p] for p in ancestors(process or 0) if p in places), None)
            if node is not None and "epoch 2/4" in (job / "train.log").read_text():
                return job, node, process
        return None

    job, node, process = wait_for(job_on_a_node, driver)
    before = len(re.findall(r"goes on from", (job / "train.log").read_text()))
    ray.remove_node(node, allow_graceful=False)
    ended(driver, folder)

    assert results(folder) == expected
    logs = {file.parent.name: file.read_text() for file in (folder / "s").glob("*/train.log")}
    assert len(logs) == 3
    for name, log in logs.items():
        assert len(re.findall(r"^folder  ", log, re.MULTILINE)) == 1, f"{name} is run to its end once"
    found = re.findall(r"goes on from .*last.ckpt, after (\d+) optimizer steps", logs[job.name])
    assert len(found) == before + 1
    assert int(found[-1]) > 78  # the steps of the first epoch
    assert "3 of 3 done" in (folder / "said.txt").read_text()
    assert not Path(f"/proc/{process}").exists()
    assert not [*(folder / "s").glob("*/error.txt")]
