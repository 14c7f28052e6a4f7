"""sweep.yaml, the record of a sweep: the command's overrides, and which job is which, so that it can be resumed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
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
        """The job that was there before: of the same configuration, or refused with the same overrides."""
        lines = sorted(mask_overrides(overrides))
        for job in self.jobs:
            if job.sha256 == sha256 if sha256 is not None and job.sha256 else sorted(job.overrides) == lines:
                return job
        return None

    def next_number(self) -> int:
        """The number of a further job: folders are called 0_resnet18, 1_swin, and so on."""
        return 1 + max((int(n[0]) for job in self.jobs if (n := re.match(r"\d+", job.folder))), default=-1)

    def write(self, folder: Path) -> None:
        """Write sweep.yaml in one step."""
        write_text(folder / RECORD, dump_yaml(dataclasses.asdict(self)))


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
        lost = [job.folder for job in jobs if Path(job.folder).is_absolute() or ".." in Path(job.folder).parts]
        if not all(isinstance(text, str) for text in texts) or lost:
            raise TypeError(f"the folder {lost[0]!r} leads out of it" if lost else "an override is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: is not the record of a sweep: {error}") from error
    return record
