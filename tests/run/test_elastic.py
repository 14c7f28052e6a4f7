"""torchrun starts a run again with the processes that are left: it goes on from its last checkpoint."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.run.several_processes import (
    PATIENCE,
    finished,
    free_port,
    running,
    stop,
    torchrun,
    wait_for,
    weight_difference,
)
from tests.run.test_several_processes import WHOLE, check_equal

pytestmark = pytest.mark.distributed

STEPS = 1259 // 64  # of an epoch
WORDS = [*WHOLE, "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.checkpoint_every=3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("elastic")


@pytest.fixture(scope="module")
def whole(place):
    """The run that nothing interrupts."""
    return finished("torchrun", WHOLE, place, "whole")


def step(folder: Path) -> int:
    """The optimizer step of a run's checkpoint, 0 without one."""
    last = folder / "checkpoints" / "last.ckpt"
    return int(torch.load(last, weights_only=True)["global_step"]) if last.is_file() else 0


def workers(folder: Path) -> list[int]:
    """The processes that train in a folder; an agent names it too, and torchrun in its command."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().split(b"\0") if place.name.isdigit() else []
        except OSError:
            continue
        if f"hydra.run.dir={folder}".encode() in words and b"torch.distributed.run" not in words:
            found.append(int(place.name))
    return found


def check_gone_on(folder: Path, whole: Path) -> None:
    log = (folder / "train.log").read_text()
    taken = re.findall(r"goes on from .*last\.ckpt, after (\d+) optimizer steps", log)
    assert len(taken) == 1, log
    assert int(taken[0]) > 0
    check_equal(whole, folder)
    assert weight_difference(whole, folder) < 1e-5


def test_the_rest_goes_on_when_a_machine_is_lost(place, whole):
    """The machine is an agent and all that it has started."""
    folder, port = place / "lost", free_port()
    group = ["--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=lost"]
    agent = [*torchrun(*group, f"--rdzv-endpoint=127.0.0.1:{port}"), *WORDS, f"hydra.run.dir={folder}"]
    with running([agent, agent], place, "lost") as (first, second):
        wait_for(lambda: step(folder) % STEPS, "no checkpoint within an epoch")
        trained = workers(folder)
        own = next(agent for agent in (second, first) if not serves(agent.pid, port))
        left = first if own is second else second
        lost_at = step(folder)
        children = [pid for pid in trained if parent(pid) == own.pid]
        stop(own, signal.SIGKILL)
        for pid in children:  # torchrun gives a worker a session of its own
            os.kill(pid, signal.SIGKILL)
        moment = time.monotonic()
        wait_for(lambda: step(folder) > lost_at, "the rest does not go on")
        print(f"lost at step {lost_at}, beyond it again after {time.monotonic() - moment:.1f} s")
        assert left.wait(PATIENCE) == 0, (place / "lost.0.txt").read_text()[-3000:]
    assert "processes 1 (was 2): accumulate_grad_batches=2" in (folder / "train.log").read_text()
    check_gone_on(folder, whole)


@pytest.mark.parametrize("rendezvous", ["standalone", "static"])
def test_a_lost_worker_is_started_again(place, whole, rendezvous):
    """The agent's store still has the addresses of the processes before."""
    folder = place / rendezvous
    where = ["--standalone"] if rendezvous == "standalone" else [f"--master-port={free_port()}"]
    words = [*torchrun(*where, "--nproc-per-node=2", "--max-restarts=2"), *WORDS]
    with running([[*words, f"hydra.run.dir={folder}"]], place, rendezvous) as (agent,):
        wait_for(lambda: step(folder) % STEPS, "no checkpoint within an epoch")
        lost_at = step(folder)
        os.kill(max(workers(folder)), signal.SIGKILL)
        moment = time.monotonic()
        wait_for(lambda: step(folder) > lost_at, "the run does not go on")
        print(f"lost at step {lost_at}, beyond it again after {time.monotonic() - moment:.1f} s")
        assert agent.wait(PATIENCE) == 0, (place / f"{rendezvous}.0.txt").read_text()[-3000:]
    assert "processes 1" not in (folder / "train.log").read_text()
    check_gone_on(folder, whole)


def parent(pid: int) -> int:
    try:
        return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def serves(pid: int, port: int) -> bool:
    """Whether a process listens at a port: the agent whose store the others meet in."""
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in (Path("/proc/net") / table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                listening.add(f"socket:[{columns[9]}]")
    links = (Path("/proc") / str(pid) / "fd").iterdir()
    return any(os.readlink(link) in listening for link in links if link.exists() or link.is_symlink())
