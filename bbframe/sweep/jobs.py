"""The jobs of a sweep, and what is said of those that fail."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.run.masking import mask_overrides, outward

if TYPE_CHECKING:
    from bbframe.run.configuration import Configuration

FILES = ("metrics.json", "error.txt", "overrides.yaml", "config.yaml")  # a folder with one of these is a job


@dataclass
class Job:
    """A checked configuration, the plain data and the overrides that it comes from, and its run folder.

    Another process is sent the plain data alone, and parses them once the user's plugins are loaded there.
    """

    plan: Configuration | None
    config: dict[str, Any]
    overrides: list[str]
    folder: Path

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "plan": None}

    def parsed(self) -> Configuration:
        """The checked configuration, in this process or in another one."""
        from bbframe.run.configuration import parse_configuration  # imports torch

        return self.plan or parse_configuration(self.config)


def one_device(devices: Any) -> Any:
    """What `trainer.devices` means in a sweep: Lightning would start more processes by the sweep's own command."""
    if devices == "auto":
        return 1
    if devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1):
        return devices
    raise ValueError(f"trainer: devices={devices!r}, but a run of a sweep has one device; leave it auto, or drop -m")


def check_new(sweep_folder: Path) -> None:
    """Refuse a folder that holds the jobs of an earlier sweep; raises ValueError in one line."""
    if any(any(sweep_folder.glob(f"*/{name}")) for name in FILES):
        raise ValueError(
            f"hydra.sweep.dir={sweep_folder} holds an earlier sweep; give another folder, or none for a new one"
        )


def report_failure(folder: Path, overrides: Sequence[str], error: Exception) -> None:
    """Say at once that a job failed, and leave the reason in its folder for the table."""
    from bbframe.run.record import write_failure  # imports torch

    write_failure(folder, list(overrides), str(error) or type(error).__name__)
    print(outward(f"FAILED {' '.join(mask_overrides(overrides))}\n  {error}"), file=sys.stderr, flush=True)


def report_lost(jobs: Sequence[Job]) -> None:
    """Report the jobs without a result: a launcher of other processes may lose one without a word."""
    for job in jobs:
        if not any((job.folder / name).exists() for name in ("metrics.json", "error.txt")):
            report_failure(job.folder, job.overrides, RuntimeError("the run ended without a result"))
