"""The folder of a sweep: its checked jobs, each in a sub-folder, found again when the sweep is resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from bbframe.app.command_line import quoted
from bbframe.app.hydra_settings import SWEEP_FOLDER, settled
from bbframe.app.run_folder import new_folder
from bbframe.app.run_request import RunRequest
from bbframe.app.start_ledger import StartLedger, earlier_start, may_be_repeated, note_start
from bbframe.run.masking import mask_overrides
from bbframe.sweep.job_lock import waiting_lock
from bbframe.sweep.jobs import FILES, Job, one_device, read_result
from bbframe.sweep.sweep_record import RECORD, RecordedJob, SweepRecord, read_sweep


@dataclass
class Checked:
    """A combination of overrides, and its job, whose folder is not known yet, or the error that refuses it."""

    combination: list[str]
    request: RunRequest | None = None
    job: Job | None = None
    error: ValueError | None = None


def checked_job(compose: Callable[[list[str]], DictConfig], combination: list[str]) -> Checked:
    """Compose and check the job of a combination."""
    from bbframe.run.configuration import parse_configuration

    try:
        request = RunRequest(compose, combination)
        request.data["trainer"]["devices"] = one_device(request.data["trainer"]["devices"])
        plan = parse_configuration(request.data)
        plan.check_machine()
    except ValueError as error:
        return Checked(combination, error=error)
    return Checked(combination, request, Job(plan, request.data, request.record, Path()))


@dataclass
class SweepFolder:
    """A sweep's folder, and the record of what runs in it."""

    folder: Path
    record: SweepRecord

    @classmethod
    def open(cls, request: RunRequest, overrides: Sequence[str], flags: dict[str, str]) -> SweepFolder:
        """The folder of a sweep whose first job is `request`: a new one, or the one that the user names.

        One that holds a sweep is resumed. Raises ValueError when the jobs in it have no record.
        """
        folder = Path(settled(request.config, request.data, "hydra.sweep.dir"))
        stated = OmegaConf.to_container(request.config.hydra, resolve=False)["sweep"]["dir"]  # type: ignore
        if stated == SWEEP_FOLDER:
            folder = repeated_folder(Path(str(request.data["output_dir"])), ["-m", *overrides], folder)
        before = read_sweep(folder)
        if before is None and any((folder / name).exists() for name in FILES):
            raise ValueError(f"hydra.sweep.dir={folder} is the folder of a run; give another folder")
        if before is None and any(any(folder.glob(f"*/{name}")) for name in FILES):
            raise ValueError(
                f"hydra.sweep.dir={folder} holds jobs without the sweep's record, {RECORD}; give another folder, or "
                "none for a new one"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"hydra.sweep.dir={folder}: cannot be made ({error.strerror}); give another") from error
        record = before or SweepRecord.of(overrides, flags)
        if before is None:
            record.write(folder)
        return cls(folder, record)

    def missing(self, checked: Sequence[Checked]) -> list[list[str]]:
        """The overrides of recorded jobs that have no result and are not among those that are `checked`.

        A job whose secrets were masked is left out: only the command that names them can run it.
        """
        known = {one.job.sha256 for one in checked if one.job is not None}
        lost = [
            j for j in self.record.jobs if j.sha256 not in (None, *known) and not read_result(self.folder / j.folder)
        ]
        return [job.overrides for job in lost if not any("***" in line for line in job.overrides)]

    def settle(self, checked: Sequence[Checked]) -> tuple[list[Job], int, list[tuple[Path, list[str], ValueError]]]:
        """The jobs that have passed, each with its folder, how many combinations repeat another one, and the refused.

        A refused one is (folder, combination, error). The record then knows them all, and no longer those that were
        refused before and are not asked any more. Raises ValueError when two jobs would share a folder.
        """
        with waiting_lock(self.folder / f".{RECORD}.lock"):
            if (now := read_sweep(self.folder)) is not None:  # another process may have added jobs
                self.record = now
            asked = [sorted(mask_overrides(one.combination)) for one in checked if one.error is not None]
            for job in [*self.record.jobs]:
                if job.sha256 is None and sorted(job.overrides) not in asked:
                    self.record.forget(job, self.folder)
            jobs: dict[str, Job] = {}
            for one in checked:
                if one.job is not None and one.request is not None and (sha256 := one.job.sha256) not in jobs:
                    jobs[sha256] = self._placed(one.job, one.request)
            refused = [self._refused(one) for one in checked if one.error is not None]
            self.record.write(self.folder)
        passed = sum(one.job is not None for one in checked)
        return list(jobs.values()), passed - len(jobs), refused

    def _placed(self, job: Job, request: RunRequest) -> Job:
        known = self.record.job_of(job.sha256, ())
        place = known.folder if known else self.new_place(request, self.record.next_number(), self.places)
        self._note(RecordedJob(place, job.sha256, mask_overrides(job.overrides)))
        return self.in_folder(job, place, request)

    def _refused(self, one: Checked) -> tuple[Path, list[str], ValueError]:
        assert one.error is not None
        known = self.record.job_of(None, one.combination)
        place = known.folder if known else f"{self.record.next_number()}_failed"
        self._note(RecordedJob(place, None, mask_overrides(one.combination)))
        return self.folder / place, one.combination, one.error

    def in_folder(self, job: Job, place: str, request: RunRequest) -> Job:
        """The job in a sub-folder, of which Hydra is told."""
        job.folder = self.folder / place
        folders = [f"hydra.sweep.dir={quoted(self.folder)}", f"hydra.sweep.subdir={quoted(place)}"]
        job.launched = [*request.overrides, *folders]
        return job

    @property
    def places(self) -> set[str]:
        """The sub-folders that are given to jobs."""
        return {job.folder for job in self.record.jobs}

    def new_place(self, request: RunRequest, number: int, taken: Collection[str] = ()) -> str:
        """The sub-folder that `hydra.sweep.subdir` gives a job of a number, or the next one whose is not `taken`.

        Raises ValueError when it leads out of the sweep's folder, and when another number changes nothing.
        """
        place = None
        for further in range(number, number + len(taken) + 1):
            before, place = place, settled(request.config, request.data, "hydra.sweep.subdir", further)
            if Path(os.path.normpath(place)).is_absolute() or os.path.normpath(place).startswith(".."):
                raise ValueError(f"hydra.sweep.subdir={place} must lead below hydra.sweep.dir")
            if place not in taken:
                return place
            if place == before:
                break
        raise ValueError("hydra.sweep.subdir gives two jobs one folder; put ${hydra.job.num} into it")

    def _note(self, job: RecordedJob) -> None:
        if job not in self.record.jobs:
            self.record.jobs.append(job)


def repeated_folder(output_dir: Path, words: Sequence[str], first: Path) -> Path:
    """The folder in which an earlier start of this sweep wrote, when Slurm has requeued its job; else a new one."""
    if not may_be_repeated():
        return new_folder(first)
    with StartLedger(output_dir, words).opened() as entries:
        earlier = earlier_start(entries, ())
        folder = new_folder(first) if earlier is None else Path(earlier["folder"])
        note_start(entries, earlier, folder, ())
    return folder


@contextmanager
def table_at_the_end(folder: Path) -> Iterator[None]:
    """Print the table of all jobs when the block ends, however it does, and how to go on when it was interrupted."""
    from bbframe.sweep import leaderboard

    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; this continues the sweep: python train.py resume={folder}")
        raise
    finally:
        print(f"\n{leaderboard.write(folder)}\n{folder}")
