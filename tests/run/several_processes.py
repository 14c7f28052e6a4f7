"""Runs of several processes, started as people start them, and what two runs that should be equal differ by."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
MODULE = ["-m", "bbframe.app.train"]
SCRIPT = ROOT / "train.py"
# of a run's results: what two runs of the same images do not share
OWN = ("seconds", "latency_seconds", "peak_memory_bytes", "overrides", "folder", "name", "skipped")
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
PATIENCE = 300.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment() -> dict[str, str]:
    launched = ("SLURM_", "TORCHELASTIC_", "PMI", "OMPI_", "PET_")
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "BBFRAME_RUN_FOLDER")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(launched) and k not in names}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}


def started(words: Sequence[str], place: Path, log: str) -> subprocess.Popen[bytes]:
    """A process with a group of its own, whose output goes to a file."""
    with (place / log).open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=place,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def torchrun(*options: str) -> list[str]:
    return ["-m", "torch.distributed.run", *options, str(SCRIPT)]


def alone(folder: Path) -> list[list[str]]:
    return [[str(SCRIPT), "trainer.devices=1"]]


def by_lightning(folder: Path) -> list[list[str]]:
    return [[str(SCRIPT), *TWO]]


def by_torchrun(folder: Path) -> list[list[str]]:
    return [[*torchrun("--nproc-per-node=2", f"--master-port={free_port()}"), "trainer.strategy=ddp"]]


def by_two_agents(folder: Path) -> list[list[str]]:
    place = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    return [[*torchrun(*place, f"--node-rank={node}"), "trainer.strategy=ddp"] for node in (0, 1)]


WAYS: dict[str, Callable[[Path], list[list[str]]]] = {
    "alone": alone,
    "lightning": by_lightning,
    "torchrun": by_torchrun,
    "agents": by_two_agents,
    "as typed": lambda folder: [[str(SCRIPT)]],
}


def finished(way: str, overrides: Sequence[str], place: Path, name: str, code: int = 0) -> Path:
    """The folder of a run that has ended with a code, in all of its processes."""
    folder = place / name
    words = [*overrides, "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
    processes = [started([*command, *words], place, f"{name}.{i}.txt") for i, command in enumerate(WAYS[way](folder))]
    try:
        codes = [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            stop(process)
    said = "\n".join((place / f"{name}.{i}.txt").read_text(errors="replace") for i in range(len(processes)))
    assert codes == [code] * len(codes), f"{way} {codes}\n{said[-6000:]}"
    return folder


@contextmanager
def running(commands: Sequence[Sequence[str]], place: Path, name: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Started processes, ended when the block ends."""
    processes = [started(command, place, f"{name}.{i}.txt") for i, command in enumerate(commands)]
    try:
        yield processes
    finally:
        for process in processes:
            stop(process)
            process.wait()


def wait_for(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> dict[str, Any]:
    """Everything that a run says of its images, by file."""
    said = json.loads((folder / "metrics.json").read_text())
    found: dict[str, Any] = {"metrics.json": {key: value for key, value in said.items() if key not in OWN}}
    for name in ("metrics.csv", "predictions.csv"):
        if (folder / name).is_file():
            kept = [{key: value for key, value in row.items() if key != "seconds"} for row in rows(folder, name)]
            found[name] = kept
    for path in sorted(folder.glob("*predictions.json")):
        found[path.name] = json.loads(path.read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def weight_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    floating = [key for key in first if first[key].is_floating_point()]
    return max(float((first[key] - second[key]).abs().max()) for key in floating)


def difference(one: Any, other: Any, where: str = "", seen: dict[str, float] | None = None) -> dict[str, float]:
    """The absolute differences of all numbers of two results, by where they are; anything else must be equal."""
    seen = {} if seen is None else seen
    if isinstance(one, dict):
        assert one.keys() == other.keys(), f"{where}: {sorted(one.keys() ^ other.keys())}"
        for key in one:
            difference(one[key], other[key], f"{where}/{key}", seen)
    elif isinstance(one, list):
        assert len(one) == len(other), f"{where}: {len(one)} and {len(other)}"
        for first, second in zip(one, other, strict=True):
            difference(first, second, f"{where}[]", seen)
    elif one != other:
        try:
            seen[where] = max(seen.get(where, 0.0), abs(float(one) - float(other)))
        except (TypeError, ValueError):
            raise AssertionError(f"{where}: {one!r} and {other!r}") from None
    return seen


def worst(one: Path, other: Path) -> tuple[float, str]:
    """The largest difference of two runs' results, and where it is."""
    found = difference(results(one), results(other))
    return max(((value, where) for where, value in found.items()), default=(0.0, ""))


def killed_within_epoch(commands: Sequence[Sequence[str]], place: Path, name: str, epoch_steps: int) -> Path:
    """Kill a run by SIGKILL once it has left a checkpoint in the middle of an epoch; that checkpoint."""
    last, kept = place / name / "checkpoints" / "last.ckpt", place / f"{name}.ckpt"

    def within() -> bool:
        kept.unlink(missing_ok=True)
        if not last.is_file():
            return False
        os.link(last, kept)  # the next checkpoint replaces the other name
        return torch.load(kept, weights_only=True)["global_step"] % epoch_steps != 0

    with running(commands, place, name):
        wait_for(within, f"no checkpoint within an epoch: {(place / f'{name}.0.txt').read_text()[-3000:]}")
    assert not (place / name / "metrics.json").exists(), "the run has ended before it was killed"
    return kept
