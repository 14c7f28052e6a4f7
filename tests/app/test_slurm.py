"""A real Slurm starts runs: one folder and one log, and a requeued job goes on in its own folder, to the last bit."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bbframe.app.places import HOME
from tests import slurm_server

pytestmark = [
    pytest.mark.launchers,
    pytest.mark.skipif(slurm_server.why_not() is not None, reason=str(slurm_server.why_not())),
]
NETWORK = (
    "backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] backbone.embedding_size=8 "
    "data=digits data.num_workers=0 data.batch_size=32 trainer.accelerator=cpu"
)
SHORT = f"{NETWORK} trainer.max_epochs=1"
# half a minute, so that there is time to requeue it
LONG = f"{NETWORK} trainer.max_epochs=20 trainer.ema_decay=0.9 trainer.checkpoint_every=50 optim.lr=0.003"
TRAIN = f"{sys.executable} {HOME / 'train.py'}"


class Cluster:
    """A Slurm of one host; commands run in `folder`."""

    def __init__(self, environment: dict[str, str]) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        self.environment = {**clean, **environment, "OMP_NUM_THREADS": "1"}

    def run(self, folder: Path, *command: str, code: int | None = 0) -> str:
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=600)
        assert code is None or done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def submit(self, folder: Path, script: str, *options: str) -> str:
        """Submit a script of one line; the number of its job."""
        (folder / "job.sh").write_text(f"#!/bin/bash\n{script}\n")
        said = self.run(folder, "sbatch", "--parsable", "--open-mode=append", *options, "job.sh")
        return said.strip().partition(";")[0]

    def show(self, job: str) -> dict[str, str]:
        """What Slurm says of a job; of an array, of its last task."""
        words = self.run(Path("/"), "scontrol", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def wait(self, job: str, minutes: float = 8) -> dict[str, str]:
        """Wait until a job has ended, starting it at once where Slurm holds it back after a requeue."""
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            found = self.show(job)
            if found["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
                return found
            if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime":
                self.run(Path("/"), "scontrol", "update", f"JobId={job}", "StartTime=now", code=None)
            time.sleep(1)
        raise AssertionError(f"the job has not ended: {self.show(job)}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_server.slurm(tmp_path_factory.mktemp("slurm") / "slurm") as environment:
        yield Cluster(environment)


def steps(folder: Path) -> int:
    """The optimizer steps in a run's last.ckpt, 0 without one."""
    last = folder / "checkpoints" / "last.ckpt"
    return int(torch.load(last, weights_only=True, mmap=True)["global_step"]) if last.is_file() else 0


def wait_for_steps(folder: Path, count: int) -> None:
    for _ in range(1200):
        if steps(folder) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} has {steps(folder)} steps")


def only_run(folder: Path) -> Path:
    (run,) = (folder / "outputs" / "classification").iterdir()
    return run


def left(run: Path) -> tuple[dict, list[dict]]:
    """The last checkpoint of a run, and its history."""
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    return {key: last.get(key) for key in kept}, rows


def check_equal(run: Path, expected: Path) -> None:
    (weights, rows), (wanted, wanted_rows) = left(run), left(expected)
    torch.testing.assert_close(weights, wanted, rtol=0, atol=0)
    assert rows == wanted_rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cluster):
    """The run that a job leaves that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = cluster.submit(folder, f"srun {TRAIN} {LONG}", "--ntasks=1")
    assert cluster.wait(job)["JobState"] == "COMPLETED", (folder / f"slurm-{job}.out").read_text()[-3000:]
    return only_run(folder)


def test_two_tasks_write_one_folder_and_one_log(cluster, tmp_path):
    said = cluster.run(tmp_path, "srun", "-n2", *TRAIN.split(), *SHORT.split())
    run = only_run(tmp_path)
    assert (run / "metrics.json").is_file()
    log = (run / "train.log").read_text().splitlines()
    assert sum("epoch 1/1" in line for line in log) == said.count("epoch 1/1") == 1
    assert said.count("test/accuracy") == 1
    assert "srun" not in said + "\n".join(log)
    assert len(left(run)[1]) == 1


def test_srun_in_a_persons_shell_starts_one_run(cluster, tmp_path):
    cluster.run(tmp_path, "salloc", "-n2", "bash", "-c", f"srun {TRAIN} {SHORT}")
    assert (only_run(tmp_path) / "metrics.json").is_file()


def test_an_error_of_two_tasks_is_said_once(cluster, tmp_path):
    line = [*TRAIN.split(), *SHORT.split()]
    said = cluster.run(tmp_path, "srun", "-n2", *line, "trainer.devices=3", code=1)
    assert "trainer: devices=3, but slurm has started 2 processes on 1 nodes; leave out trainer.devices" in said
    assert said.count("error: trainer") == 1
    assert not (tmp_path / "outputs" / "classification").exists()


def test_a_job_of_two_tasks_that_forgets_srun_is_told(cluster, tmp_path):
    job = cluster.submit(tmp_path, f"{TRAIN} {SHORT}", "--ntasks=2")
    assert cluster.wait(job)["JobState"] == "FAILED"
    assert "error: Slurm gives this job 2 tasks, and the command was started once; type srun before it" in (
        (tmp_path / f"slurm-{job}.out").read_text()
    )


def test_the_tasks_of_an_array_write_a_folder_each(cluster, tmp_path):
    job = cluster.submit(tmp_path, f"srun {TRAIN} {SHORT} seed=$SLURM_ARRAY_TASK_ID", "--array=1-3", "--ntasks=1")
    for task in (1, 2, 3):
        assert cluster.wait(f"{job}_{task}")["JobState"] == "COMPLETED"
    runs = list((tmp_path / "outputs" / "classification").iterdir())
    seeds = sorted((run / "overrides.yaml").read_text().rpartition("seed=")[2].strip("]\n") for run in runs)
    assert seeds == ["1", "2", "3"]


def test_a_requeued_job_goes_on_in_its_own_folder(cluster, tmp_path, undisturbed):
    job = cluster.submit(tmp_path, f"srun {TRAIN} {LONG}", "--ntasks=1")
    wait_for_first_run(tmp_path)
    wait_for_steps(only_run(tmp_path), 60)
    cluster.run(tmp_path, "scontrol", "requeue", job)
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")
    check_equal(only_run(tmp_path), undisturbed)


@pytest.mark.parametrize("tasks", [1, 2])
def test_the_signal_before_the_time_limit_saves_and_requeues(cluster, tmp_path, undisturbed, tasks):
    job = cluster.submit(tmp_path, f"srun {TRAIN} {LONG}", f"--ntasks={tasks}")
    wait_for_first_run(tmp_path)
    wait_for_steps(only_run(tmp_path), 20)
    cluster.run(tmp_path, "scancel", "--signal=USR1", job)
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")
    run = only_run(tmp_path)
    if tasks == 1:
        check_equal(run, undisturbed)
    assert "goes on from" in (run / "train.log").read_text()
    assert [row["epoch"] for row in left(run)[1]] == [str(n + 1) for n in range(20)]


def test_a_terminated_job_asks_to_be_started_again(cluster, tmp_path):
    job = cluster.submit(tmp_path, f"srun {TRAIN} {LONG}\necho code $?", "--ntasks=1")
    wait_for_first_run(tmp_path)
    wait_for_steps(only_run(tmp_path), 20)
    cluster.run(tmp_path, "scancel", "--signal=TERM", job)
    cluster.wait(job)
    assert "code 75" in (tmp_path / f"slurm-{job}.out").read_text()
    before = steps(only_run(tmp_path))
    assert before > 20


def test_a_requeued_sweep_goes_on_in_its_own_folder(cluster, tmp_path, undisturbed):
    job = cluster.submit(tmp_path, f"exec {TRAIN} {LONG} -m seed=0,1", "--ntasks=1")
    for _ in range(1200):
        if found := list(tmp_path.glob("outputs/classification/*/0_*/config.yaml")):
            break
        time.sleep(0.1)
    wait_for_steps(found[0].parent, 60)
    cluster.run(tmp_path, "scancel", "--batch", "--signal=USR1", job)
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")
    sweep = only_run(tmp_path)
    assert len(list(sweep.glob("*/metrics.json"))) == 2
    check_equal(found[0].parent, undisturbed)


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_submitit_launcher") is None, reason="needs the extra submitit")
@pytest.mark.parametrize("how", ["requeue", "USR2"])
def test_a_job_of_submitit_that_is_requeued_goes_on_in_its_own_folder(cluster, tmp_path, undisturbed, how):
    """By Slurm, and by submitit's signal before the time limit."""
    line = f"{LONG} -m seed=0 hydra.sweep.dir=s hydra/launcher=submitit_slurm hydra.launcher.timeout_min=60".split()
    more = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.max_num_timeout=2"]
    with (tmp_path / "said").open("w") as said:
        sweep = subprocess.Popen(
            [*TRAIN.split(), *line, *more], cwd=tmp_path, env=cluster.environment, stdout=said, stderr=said
        )
    run = tmp_path / "s" / "0_resnet18"
    wait_for_steps(run, 60)
    job = cluster.run(tmp_path, "squeue", "-h", "-o", "%A").strip()
    if how == "requeue":
        cluster.run(tmp_path, "scontrol", "requeue", job)
    else:
        cluster.run(tmp_path, "scancel", "--signal=USR2", job)
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), (tmp_path / "said").read_text()
    assert sweep.wait(120) == 0, (tmp_path / "said").read_text()
    check_equal(run, undisturbed)


def wait_for_first_run(folder: Path) -> None:
    for _ in range(1200):
        if list(folder.glob("outputs/classification/*/config.yaml")):
            return
        time.sleep(0.1)
    raise AssertionError("no run has begun")
