"""Which run folders the starts of a command were given, so that a start that is repeated goes on in its own.

<output_dir>/.starts/<hash of the command>.json lists them in order. Slurm repeats a start when it has requeued a job,
and torchrun's agent when it has started its processes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bbframe.files import write_text
from bbframe.run.processes import in_slurm_shell, launcher
from bbframe.sweep.job_lock import waiting_lock

PLACE = ".starts"
Entry = dict[str, Any]


def agent() -> str | None:
    """The torchrun agent above this process, by its host, its number and its first moment; None without one."""
    if launcher() != "torchrun":
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        moment = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # no Linux: each start is then a new one
        return None
    return f"{socket.gethostname()} {boot} {os.getppid()} {moment}"


def slurm_job() -> tuple[str, int] | None:
    """The job of Slurm's around this process, and how often it was requeued; None outside of one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or in_slurm_shell():
        return None
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    return f"{cluster} {job}".strip(), int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def may_be_repeated() -> bool:
    """Whether this start may come again by itself."""
    return slurm_job() is not None or agent() is not None


class StartLedger:
    """The starts of one command below an output_dir; `words` are what was typed."""

    def __init__(self, output_dir: Path, words: Sequence[str]) -> None:
        command = json.dumps([os.getcwd(), *words])
        self.file = output_dir.expanduser() / PLACE / f"{hashlib.sha256(command.encode()).hexdigest()[:16]}.json"

    @contextmanager
    def opened(self) -> Iterator[list[Entry]]:
        """The entries, which are written when the block ends well; no other start reads them meanwhile."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"output_dir={self.file.parents[1]}: cannot be written to ({error.strerror}); give a folder that you "
                "may write to: output_dir=..."
            ) from error
        with waiting_lock(self.file.with_suffix(".lock")):
            try:
                entries = json.loads(self.file.read_text(encoding="utf-8"))
            except FileNotFoundError:
                entries = []
            yield entries
            write_text(self.file, json.dumps([e for e in entries if Path(e["folder"]).is_dir()], indent=1))


def earlier_start(entries: list[Entry], agents: Sequence[str]) -> Entry | None:
    """The entry that this start repeats: an agent's, or the first of a requeued job that it has not repeated yet."""
    for entry in reversed(entries):
        if set(agents) & set(entry["agents"]):
            return entry
    job = slurm_job()
    if job is None:
        return None
    return next((e for e in entries if e["job"] == job[0] and e["requeued"] < job[1]), None)


def note_start(entries: list[Entry], earlier: Entry | None, folder: Path, agents: Sequence[str]) -> None:
    """Say in the entries that this start has the folder."""
    name, requeued = slurm_job() or (None, 0)
    known = [] if earlier is None else earlier["agents"]
    place = str(folder)  # as it was typed: the command belongs to one current folder
    entry = {"folder": place, "job": name, "requeued": requeued, "agents": sorted({*known, *agents})}
    if earlier is None:
        entries.append(entry)
    else:
        earlier.update(entry)
