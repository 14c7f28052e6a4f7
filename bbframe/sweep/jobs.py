"""The jobs of a sweep: what each is, how far it has come, and what is said of those that fail."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.files import write_text
from bbframe.run.masking import mask_overrides, mask_secrets, outward

if TYPE_CHECKING:
    from bbframe.run.configuration import Configuration

LEFT_OUT = "left_out.txt"  # why a job was not started
FILES = ("metrics.json", "error.txt", LEFT_OUT, "overrides.yaml", "config.yaml")  # a folder with one of these is a job
PLACES = ("output_dir", "rerun")  # what does not make another job
DONE = ("ok", "pruned")


@dataclass
class Job:
    """A checked configuration, the plain data and the overrides that it comes from, and its run folder.

    `trial` is its number in a search, and `launched` the overrides that its launcher is given. `goes_on_from` is the
    last.ckpt that an earlier start of a single run has left. Another process is sent the plain data alone, and parses
    them once the user's plugins are loaded there.
    """

    plan: Configuration | None
    config: dict[str, Any]
    overrides: list[str]
    folder: Path
    trial: int | None = None
    launched: list[str] = field(default_factory=list)
    goes_on_from: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "plan": None}

    def parsed(self) -> Configuration:
        """The checked configuration, in this process or in another one."""
        from bbframe.run.configuration import parse_configuration  # imports torch

        return self.plan or parse_configuration(self.config)

    @property
    def sha256(self) -> str:
        """The hash of the resolved configuration: two jobs with the same one would repeat each other."""
        return config_sha256(self.config)


def config_sha256(config: Mapping[str, Any]) -> str:
    """The hash of a resolved configuration, secrets masked, but for where it is written to and comes from."""
    kept = {key: value for key, value in config.items() if key not in PLACES}
    return hashlib.sha256(json.dumps(mask_secrets(kept), sort_keys=True).encode()).hexdigest()


def read_result(folder: Path) -> dict[str, Any] | None:
    """The metrics.json of a job that has ended well; None when there is none, or when it cannot be read."""
    try:
        result = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(result, dict) and result.get("status") in DONE and isinstance(result.get("metric"), str)
    return result if whole and isinstance((result.get("seconds") or {}).get("total"), (int, float)) else None


def one_device(devices: Any) -> Any:
    """What `trainer.devices` means in a sweep: Lightning would start more processes by the sweep's own command."""
    if devices == "auto":
        return 1
    if devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1):
        return devices
    raise ValueError(f"trainer: devices={devices!r}, but a run of a sweep has one device; leave it auto, or drop -m")


def report_failure(folder: Path, overrides: Sequence[str], error: Exception) -> None:
    """Say at once that a job failed, and leave the reason in its folder for the table."""
    from bbframe.run.record import write_failure  # imports torch

    write_failure(folder, list(overrides), str(error) or type(error).__name__)
    print(outward(f"FAILED {' '.join(mask_overrides(overrides))}\n  {error}"), file=sys.stderr, flush=True)


def report_left_out(folder: Path, overrides: Sequence[str], reason: str) -> None:
    """Say that a job is not started, and leave the reason in its folder for the table."""
    from bbframe.files import dump_yaml

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / LEFT_OUT, f"{outward(reason)}\n")
    if not (folder / "overrides.yaml").exists():
        write_text(folder / "overrides.yaml", dump_yaml(mask_overrides(overrides)))
    print(outward(f"LEFT OUT {' '.join(mask_overrides(overrides))}\n  {reason}"), flush=True)


def report_lost(jobs: Sequence[Job]) -> None:
    """Report the jobs without a result: a launcher of other processes may lose one without a word."""
    from bbframe.sweep.job_lock import is_running

    for job in jobs:
        said = any((job.folder / name).exists() for name in ("metrics.json", "error.txt", LEFT_OUT))
        if not said and not is_running(job.folder):
            report_failure(job.folder, job.overrides, RuntimeError("the run ended without a result"))
