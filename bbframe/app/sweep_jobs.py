"""What a launcher does with the jobs of a sweep, in this process or in another one."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from bbframe.app.execution import load_plugins, placed, set_verbosity, unexpected
from bbframe.app.leftovers import whole_checkpoint
from bbframe.run.masking import mask_overrides, outward, remember
from bbframe.sweep.budget import Budget
from bbframe.sweep.device_share import limit_threads, with_share
from bbframe.sweep.job_lock import job_lock
from bbframe.sweep.jobs import LEFT_OUT, Job, read_result, report_failure, report_left_out
from bbframe.sweep.progress import observe
from bbframe.sweep.search import SearchOptions
from bbframe.sweep.search_space import Space


@dataclass(frozen=True)
class Launch:
    """The jobs in a sweep's folder that a launcher is handed, and what each must know, as data for other processes.

    `before` jobs of the sweep's `total` come first; `at_once` run at a time. `search` is the options and the space of
    a search, whose pruner is asked. `known`, unless None, are the earlier jobs of this command: each job then says how
    far the sweep has come.
    """

    folder: Path
    jobs: Sequence[Job]
    plugins: Sequence[str]
    secrets: frozenset[str]
    total: int
    before: int = 0
    at_once: int = 1
    budget: Budget | None = None
    search: tuple[SearchOptions, Space] | None = None
    known: Sequence[Job] | None = None
    started: float = field(default_factory=time.time)
    home: Path = field(default_factory=Path.cwd)  # what the jobs' folders are relative to

    def run_one(self) -> bool:
        """Do the job that Hydra says it is; a failure is reported and leaves the other jobs alone."""
        position = HydraConfig.get().job.num
        self._go_home()
        job = placed(self.jobs[position])
        remember(self.secrets)  # this may be another process
        with job_lock(job.folder) as free:
            if not free or read_result(job.folder) is not None:
                return True  # another process runs it, or has done it
            done = self._run(job, position)
        if self.known is not None:
            jobs, earlier = [*self.known, *self.jobs], self.before - len(self.known)
            print(
                outward(observe(jobs, self.total, self.at_once, self.started, earlier, self.home).line()), flush=True
            )
        return done

    def _go_home(self) -> None:
        """Work where the sweep was started: a process of a cluster works somewhere else, and folders are relative."""
        try:
            os.chdir(self.home)
        except OSError as error:
            raise ValueError(
                f"the folder {self.home}, where the sweep was started, cannot be reached from {platform.node()} "
                f"({error.strerror}); start it in a folder that all machines of the cluster share"
            ) from error

    def _run(self, job: Job, position: int) -> bool:
        try:
            if self.budget and (reason := self.budget.refusal(job)):
                report_left_out(job.folder, job.overrides, reason)
                return False
            load_plugins(self.plugins)
            for name in ("error.txt", LEFT_OUT):
                (job.folder / name).unlink(missing_ok=True)
            number = self.before + position + 1
            print(f"\n[{number}/{self.total}] {' '.join(mask_overrides(job.overrides))}", flush=True)
            self.train(job, position)
        except Exception as error:
            if job.config["debug"] or unexpected(error):
                print(outward(traceback.format_exc()), file=sys.stderr)
            report_failure(job.folder, job.overrides, error)
            return False
        return True

    def train(self, job: Job, position: int) -> None:
        """Train and test, from the checkpoint on that an earlier start of this job has left."""
        set_verbosity()
        limit_threads(self.at_once)
        from bbframe.run.training_run import run

        plan = with_share(job.parsed(), position, self.at_once)
        callbacks: list[Any] = []
        if self.search is not None and job.trial is not None:
            from bbframe.sweep.pruning import PrunedBySearch
            from bbframe.sweep.search import Search

            options, space = self.search
            if options.pruner != "none":
                callbacks.append(PrunedBySearch(Search(self.folder, options, space), job.trial))
        last = whole_checkpoint(job.folder)
        run(plan, job.config, job.overrides, job.folder, self.secrets, goes_on_from=last, callbacks=callbacks)
