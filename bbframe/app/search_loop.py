"""The loop of a search: ask for settings, run them, tell the results, until all trials have one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.app.report_command import make_missing_pages
from bbframe.app.sweep_folder import SweepFolder, checked_job
from bbframe.files import dump_yaml, write_text
from bbframe.run.masking import mask_overrides
from bbframe.sweep.job_lock import is_running
from bbframe.sweep.jobs import LEFT_OUT, Job, report_failure
from bbframe.sweep.search import Search, SearchOptions, Trial
from bbframe.sweep.search_space import Space

if TYPE_CHECKING:
    from bbframe.app.sweeper import CheckedSweeper

BEST = "best.yaml"


class SearchLoop:
    """A search in a sweep's folder. Each trial adds its values to the `fixed` overrides."""

    def __init__(
        self, sweeper: CheckedSweeper, place: SweepFolder, options: SearchOptions, space: Space, fixed: list[str]
    ) -> None:
        self.sweeper, self.place, self.options, self.space, self.fixed = sweeper, place, options, space, fixed
        self.search = Search(place.folder, options, space)
        self.jobs: list[Job] = []  # all that this process has run or taken over
        self.same = 0  # trials that repeated another one

    def run(self, at_once: int) -> bool:
        """Run trials, `at_once` at a time, until each has been tried; returns whether each has a result."""
        for trial in self.search.open_trials():  # one may have ended after its process was killed
            if folder := self.search.folder_of(trial):
                self.search.tell(trial, self.place.folder / folder)
        trials = self._trials()
        while batch := list(islice(trials, at_once)):
            self._run_batch(batch)
            if any((job.folder / LEFT_OUT).exists() for job in self.jobs[-len(batch) :]):
                break  # the budget is used up
        ended = (self.search.folder_of(trial) for trial in self.search.ended_trials())
        make_missing_pages([self.place.folder / folder for folder in ended if folder])
        self._write_best()
        return not [trial for trial in self.search.open_trials() if not self._runs_elsewhere(trial)]

    def _trials(self) -> Iterator[Trial]:
        """The proposals that killed and failed jobs have left open, then new ones."""
        yield from (trial for trial in self.search.open_trials() if not self._runs_elsewhere(trial))
        while (trial := self.search.ask()) is not None:
            yield trial

    def _runs_elsewhere(self, trial: Trial) -> bool:
        folder = self.search.folder_of(trial)
        return folder is not None and is_running(self.place.folder / folder)

    def _run_batch(self, batch: Sequence[Trial]) -> None:
        jobs = {trial.number: job for trial in batch if (job := self._job(trial)) is not None}
        self.sweeper.launch(
            list(jobs.values()),
            self.place.folder,
            total=self.options.trials,
            done=len(self.jobs),
            search=(self.options, self.space),
            known=self.jobs,
        )
        self.jobs += jobs.values()
        for trial in batch:
            if trial.number in jobs:
                self.search.tell(trial, jobs[trial.number].folder)

    def _job(self, trial: Trial) -> Job | None:
        """The job of a trial; None when it is refused, which is reported, or repeats one, whose result it gets."""
        checked = checked_job(self.sweeper.compose, [*self.fixed, *trial.overrides])
        known = self.search.folder_of(trial)
        if checked.job is None or checked.request is None:
            assert checked.error is not None
            place = known or f"{trial.number}_failed"
            self.search.note(trial, place, None)
            report_failure(self.place.folder / place, checked.combination, checked.error)
            return None
        job = checked.job
        twin = self.search.finished_twin(job.sha256)
        if known is None and twin is not None:
            self.search.note(trial, twin, job.sha256)
            self.search.tell(trial, self.place.folder / twin)
            print(f"\n[{trial.number + 1}/{self.options.trials}] {' '.join(trial.overrides)} repeats {twin}")
            return None
        place = known or self.place.new_place(checked.request, trial.number, self.search.folders)
        self.search.note(trial, place, job.sha256)
        job.trial = trial.number
        return self.place.in_folder(job, place, checked.request)

    def _write_best(self) -> None:
        """Print the best trial, or the Pareto set of several objectives, and leave it in best.yaml."""
        if not (best := self.search.best()):
            return
        names = list(self.options.objectives) or ["value"]
        rows: list[dict[str, Any]] = [
            {"folder": folder, **dict(zip(names, values, strict=True)), "overrides": mask_overrides(overrides)}
            for folder, overrides, values in best
        ]
        write_text(Path(self.place.folder, BEST), dump_yaml(rows))
        print(f"\nbest of the search, by validation ({BEST}):")
        for row, (_, overrides, _) in zip(rows, best, strict=True):
            scores = ", ".join(f"{name} {row[name]:.4g}" for name in names)
            print(f"  {scores}: {' '.join(mask_overrides(overrides))}")
