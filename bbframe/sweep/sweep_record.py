"""sweep.yaml, the record of a sweep: the command's overrides, and which job is which, so that it can be resumed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbframe.files import dump_yaml, read_yaml, write_text
from bbframe.registry import plugins
from bbframe.run.masking import mask_overrides

RECORD = "sweep.yaml"


@dataclass(frozen=True)
class RecordedJob:
    """A job's folder below the sweep's, the hash of its configuration (None: it was refused), and its overrides."""

    folder: str
    sha256: str | None
    overrides: list[str]


@dataclass
class SweepRecord:
    """What a sweep was asked, its plugins ({module, version, sha256}), and its jobs; a search keeps its own.

    `flags` are those of the command line that say where configuration is: {"config-dir": "mine"}.
    """

    overrides: list[str]
    plugins: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[RecordedJob] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Sequence[str], flags: dict[str, str]) -> SweepRecord:
        """The record of a command that starts now, secrets masked."""
        used = [dataclasses.asdict(plugin) for plugin in plugins()]
        return cls(mask_overrides(overrides), used, flags=flags)

    def job_of(self, sha256: str | None, overrides: Sequence[str]) -> RecordedJob | None:
        """The job that was there before: of the same configuration, or, for None, refused with the same overrides."""
        lines = sorted(mask_overrides(overrides))
        same = [job for job in self.jobs if job.sha256 == sha256]
        return next((job for job in same if sha256 is not None or sorted(job.overrides) == lines), None)

    def next_number(self) -> int:
        """The number of a further job: folders are called 0_resnet18, 1_swin, and so on."""
        return 1 + max((int(n[0]) for job in self.jobs if (n := re.match(r"\d+", job.folder))), default=-1)

    def forget(self, job: RecordedJob, folder: Path) -> None:
        """Take out a job that was refused, and the reason that it left in its folder below the sweep's."""
        self.jobs.remove(job)
        for name in ("error.txt", "overrides.yaml"):
            (folder / job.folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # there is more in it, or nothing
            (folder / job.folder).rmdir()

    def write(self, folder: Path) -> None:
        """Write sweep.yaml in one step."""
        write_text(folder / RECORD, dump_yaml(dataclasses.asdict(self)))


def _lies_below(folder: Path, name: str) -> bool:
    """Whether a job's folder is one below the sweep's, through no link."""
    place = Path(name)
    inside = place.parts and not place.is_absolute() and ".." not in place.parts
    return bool(inside) and (folder / place).resolve() == folder.resolve() / place


def read_sweep(folder: Path) -> SweepRecord | None:
    """The record in a sweep's folder, None when there is none. Raises ValueError that says what is wrong with it."""
    file = folder / RECORD
    if not file.is_file():
        return None
    data = read_yaml(file, dict)
    try:
        jobs = [RecordedJob(**job) for job in data.get("jobs") or []]
        flags = {str(name): str(value) for name, value in dict(data.get("flags") or {}).items()}
        record = SweepRecord(list(data["overrides"]), list(data.get("plugins") or []), jobs, flags)
        texts = [*record.overrides, *(line for job in jobs for line in job.overrides), *(job.folder for job in jobs)]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("an override is no text")
        if not all(isinstance(plugin, dict) for plugin in record.plugins):
            raise TypeError("a plugin is no mapping")
        if lost := [job.folder for job in jobs if not _lies_below(folder, job.folder)]:
            raise ValueError(f"the folder {lost[0]!r} leads out of it")
    except (KeyError, TypeError, ValueError) as error:
        reason = "a job lacks its folder, hash or overrides" if "RecordedJob" in str(error) else error
        raise ValueError(f"{file}: is not the record of a sweep: {reason}") from error
    return record
