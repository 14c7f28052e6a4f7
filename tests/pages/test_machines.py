"""What the page of many machines says is started in small: torchrun, a pod, a task of SkyPilot, jobs of Slurm."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from docs.rooms import ROOT
from tests import slurm_server
from tests.pages.blocks import blocks_of, command_lines

PAGE = ROOT / "docs" / "machines.md"
BLOCKS = blocks_of(PAGE)
# a network and images that two processes on two cores train on in seconds
SMALL = (
    "backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] backbone.embedding_size=8 "
    "backbone.pretrained=false data.image_size=32 data.batch_size=4 data.num_workers=0 trainer.max_epochs=2 "
    "trainer.accelerator=cpu"
).split()
TORCHRUN = [
    words for block in BLOCKS if block.use == "run" for words in command_lines(block) if words[0] == "torchrun"
]


def file_of(title: str) -> str:
    """The text of a file that the page holds."""
    return next(block.text for block in BLOCKS if block.title == title)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def home(place):
    """The folder of the pages with train.py in it, in which processes find this checkout's programs."""
    shutil.copy(ROOT / "train.py", place)
    return place


def started(words: Sequence[str], home: Path, **variables: str) -> subprocess.Popen[str]:
    """A process in a session of its own; it writes to <home>/said."""
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": found, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    with (home / "said").open("a") as said:
        return subprocess.Popen(
            list(words), cwd=home, env=environment, stdout=said, stderr=said, text=True, start_new_session=True
        )


def ended(processes: Sequence[subprocess.Popen[str]], home: Path, code: int = 0) -> str:
    """What the processes have said, once all have ended with the exit code `code`."""
    try:
        codes = [process.wait(300) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = (home / "said").read_text()
    assert codes == [code] * len(processes), said[-4000:]
    return said


def results(folder: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in folder.rglob("metrics.json")]


def changed(words: Sequence[str], **options: str) -> list[str]:
    """The words with other values of `--options`, and what makes the training small behind them."""
    found = list(words)
    for name, value in options.items():
        found[found.index(f"--{name.replace('_', '-')}") + 1] = value
    return [*found, *SMALL]


@pytest.mark.distributed
def test_torchrun_on_one_machine(home):
    words = next(words for words in TORCHRUN if "--nnodes" not in words)
    ended([started(changed(words, nproc_per_node="2"), home)], home)
    (found,) = results(home / "outputs")
    assert found["status"] == "ok"


@pytest.mark.distributed
def test_torchrun_on_two_machines(home):
    words = next(words for words in TORCHRUN if "--nnodes" in words)
    small = changed(words, nproc_per_node="1", rdzv_endpoint=f"127.0.0.1:{free_port()}")
    small[small.index("output_dir=/shared/outputs")] = f"output_dir={home / 'shared'}"
    ended([started(small, home) for _ in range(2)], home)
    (found,) = results(home)
    assert found["status"] == "ok"
    assert len(list((home / "shared").rglob("train.log"))) == 1


def stop_in_training(process: subprocess.Popen[str], last: Path) -> None:
    """Send SIGTERM once there is a checkpoint."""
    for _ in range(600):
        if last.exists():
            break
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)


@pytest.mark.distributed
def test_a_pod_that_is_told_to_stop_goes_on_in_the_next_one(home):
    """Validated against the schema of Kubernetes 1.37 when it was written."""
    job = yaml.safe_load(file_of("flowers-job.yaml"))
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule] == [[75]]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"], *SMALL, "trainer.checkpoint_every=1", "trainer.max_epochs=20"]
    words = [word.replace("/data/", f"{home}/") for word in words if word != "trainer.checkpoint_every=30m"]
    first = started(words, home)
    stop_in_training(first, home / "runs" / "flowers" / "checkpoints" / "last.ckpt")
    ended([first], home, code=75)
    assert not results(home / "runs")
    ended([started(words, home)], home)
    (found,) = results(home / "runs")
    assert found["epochs"] == 20
    before = (home / "runs" / "flowers" / "metrics.json").stat().st_mtime_ns
    ended([started(words, home)], home)  # a manager that starts it once more
    assert (home / "runs" / "flowers" / "metrics.json").stat().st_mtime_ns == before
    rows = (home / "runs" / "flowers" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 20


@pytest.mark.distributed
def test_a_task_of_skypilot_on_two_machines(home):
    """Read by SkyPilot 0.14 when it was written."""
    task = yaml.safe_load(file_of("flowers-sky.yaml"))
    script = task["run"].rstrip().replace("/data/", f"{home}/").replace("29500", str(free_port()))
    script = f"{script} {' '.join(SMALL)}"
    nodes = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "1", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1"}
    ranks = [{**nodes, "SKYPILOT_NODE_RANK": str(rank)} for rank in range(2)]
    ended([started(["bash", "-ec", script], home, **variables) for variables in ranks], home)
    (found,) = results(home / "runs")
    assert found["status"] == "ok"


@pytest.fixture
def slurm(home):
    if (reason := slurm_server.why_not()) is not None:
        pytest.skip(reason)
    with slurm_server.slurm(home / "slurm") as environment:
        yield environment


def submitted(title: str, home: Path, environment: dict[str, str], **settings: str) -> str:
    """Wait for a script of the page, made small, to end as a job of Slurm; returns what it said."""
    text = file_of(title)
    for name, value in settings.items():
        text = re.sub(rf"(--{name.replace('_', '-')}=)\S+", rf"\g<1>{value}", text)
    text = re.sub(r"#SBATCH --(gpus|time).*\n", "", text)
    text = re.sub(r"(?m)^srun .*$", lambda line: f"{line[0]} {' '.join(SMALL)}", text)
    (home / title).write_text(text)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        ["sbatch", "--wait", "--output=said-%a", title],
        cwd=home,
        env={**os.environ, **environment, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = "\n".join(file.read_text() for file in home.glob("said-*"))
    assert done.returncode == 0, done.stdout + done.stderr + said[-3000:]
    return said


@pytest.mark.launchers
def test_a_job_of_slurm_is_one_run(home, slurm):
    submitted("flowers.sh", home, slurm, nodes="1", ntasks_per_node="2", cpus_per_task="1")
    (found,) = results(home / "outputs")
    assert found["status"] == "ok"


@pytest.mark.launchers
def test_an_array_of_slurm_is_a_run_for_each_task(home, slurm):
    submitted("seeds.sh", home, slurm, array="1-2", cpus_per_task="1")
    assert sorted(found["seed"] for found in results(home / "outputs")) == [1, 2]
