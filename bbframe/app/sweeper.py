"""The sweeper `hydra/sweeper=bbframe`: every combination, or a search; checked first, isolated, never repeated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from bbframe import registry
from bbframe.app.combinations import expand
from bbframe.app.command_line import key_of, readable
from bbframe.app.composition import settings_alone
from bbframe.app.execution import users_environment
from bbframe.app.hydra_settings import check_params, check_settings
from bbframe.app.launchers import HERE, check_launcher, jobs_at_once, launcher_name, limited, waves
from bbframe.app.report_command import make_missing_pages
from bbframe.app.search_axes import first_point, search_axes
from bbframe.app.search_loop import SearchLoop
from bbframe.app.sweep_folder import Checked, SweepFolder, checked_job, table_at_the_end
from bbframe.app.sweep_jobs import Launch
from bbframe.app.sweep_options import SweepOptions
from bbframe.app.sweep_resume import configuration_flags
from bbframe.run.masking import remembered
from bbframe.sweep.budget import Budget
from bbframe.sweep.device_share import visible_gpus
from bbframe.sweep.job_lock import is_running
from bbframe.sweep.jobs import LEFT_OUT, Job, read_result, report_failure, report_lost
from bbframe.sweep.live_table import progress_shown
from bbframe.sweep.progress import observe
from bbframe.sweep.search import SearchOptions
from bbframe.sweep.search_journal import JOURNAL
from bbframe.sweep.search_space import Space


class FailedJobs(Exception):
    """Some jobs of a sweep failed, or were left out; each has been reported."""


class CheckedSweeper(Sweeper):
    """Hydra's interface to the sweep; its options are those of `SweepOptions`."""

    hydra_context: HydraContext
    config: DictConfig

    def __init__(self, **options: Any) -> None:
        self.stated = options  # read by `sweep`, because Hydra wraps what is raised here

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Check every combination, run those that pass and are not done by Hydra's launcher, and write the table.

        Raises ValueError when no combination passes, and FailedJobs when a job has no result in the end.
        """
        self.options = SweepOptions.read(self.stated)
        check_params(self.options.params, "configuration")  # what it is now, whatever its interpolations were before
        check_launcher(self.config)
        given = {key_of(override) for override in arguments}
        params = [readable(f"{key}={value}", True) for key, value in self.options.params.items() if key not in given]
        self.overrides = [*params, *arguments]
        if self.options.trials is None:
            self._run_grid(expand(self.overrides, self.hydra_context.config_loader))
        else:
            self._run_search(*search_axes(self.overrides, self.hydra_context.config_loader))

    def _run_grid(self, combinations: Sequence[list[str]]) -> None:
        checked = [checked_job(self.compose, combination) for combination in combinations]
        place = self._opened(checked)
        if (place.folder / JOURNAL).exists():
            raise ValueError(
                f"hydra.sweep.dir={place.folder} holds a search; resume={place.folder} goes on with it, and every "
                "combination of values needs another folder"
            )
        checked += [checked_job(self.compose, overrides) for overrides in place.missing(checked)]
        jobs, again, refused = place.settle(checked)
        todo = [job for job in jobs if read_result(job.folder) is None]
        notes = [f"{len(jobs) - len(todo)} of them done before"] if len(todo) < len(jobs) else []
        notes += [f"{again} repeat others and are left out"] if again else []
        print(", ".join([f"{len(checked)} runs in {place.folder}", *notes]), flush=True)
        for folder, combination, error in refused:
            report_failure(folder, combination, error)
        with table_at_the_end(place.folder):
            done = [job for job in jobs if job not in todo]
            self.launch(todo, place.folder, total=len(jobs), done=len(done), known=done)
            make_missing_pages([job.folder for job in done])
        open_jobs = [job for job in jobs if read_result(job.folder) is None]
        elsewhere = [job for job in open_jobs if is_running(job.folder)]
        if elsewhere:
            print(f"another process runs {', '.join(job.folder.name for job in elsewhere)}")
        if refused or len(elsewhere) < len(open_jobs):
            raise FailedJobs

    def _run_search(self, space: Space, fixed: list[str]) -> None:
        first = checked_job(self.compose, [*fixed, *first_point(space)])
        place = self._opened([first])
        if place.record.jobs:
            raise ValueError(
                f"hydra.sweep.dir={place.folder} holds a sweep over listed values; give a search another folder, or "
                "none for a new one"
            )
        assert first.job is not None
        assert first.job.plan is not None
        options = self.options.of_search(first.job.plan, fixed)
        loop = SearchLoop(self, place, options, space, fixed)
        print(f"a search of {options.trials} trials in {place.folder}")
        with table_at_the_end(place.folder):
            ended = loop.run(self._at_once(first.job))
        if not ended:
            raise FailedJobs

    def _opened(self, checked: Sequence[Checked]) -> SweepFolder:
        """The sweep's folder, new or resumed. Raises ValueError when no combination has passed."""
        passed = [one for one in checked if one.request is not None]
        if not passed:
            raise ValueError("\n".join(dict.fromkeys(str(one.error) for one in checked)))
        assert passed[0].request is not None
        OmegaConf.copy_cache(self.config, passed[0].request.config)
        place = SweepFolder.open(
            passed[0].request, [*self.overrides, *self.options.recorded()], configuration_flags(self.config)
        )
        budget = self.options.budget
        self.budget = None if budget is None else Budget.starting_now(budget, place.folder.absolute())
        return place

    def compose(self, overrides: list[str]) -> DictConfig:
        """Compose one job by the loader of the application that runs."""
        hydra_overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        given, name = [*hydra_overrides, *overrides], self.config.hydra.job.config_name
        loader = self.hydra_context.config_loader
        config = loader.load_configuration(name, given, run_mode=RunMode.RUN, from_shell=False)
        check_settings(config, settings_alone(given), given)
        return config

    def _at_once(self, job: Job) -> int:
        given: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        return jobs_at_once(self.config, visible_gpus(job.parsed()), self.options.jobs_per_device, given)

    def launch(
        self,
        jobs: Sequence[Job],
        folder: Path,
        *,
        total: int,
        done: int = 0,
        search: tuple[SearchOptions, Space] | None = None,
        known: Sequence[Job] = (),
    ) -> None:
        """Hand jobs to the launcher that the configuration names: Hydra's basic one, joblib, submitit, ray.

        `done` of the sweep's `total` jobs came before; `known` are those of them that the progress tells of.
        """
        if not jobs:
            return
        plugins, hidden = [plugin.module for plugin in registry.plugins()], remembered()
        at_once = min(len(jobs), self._at_once(jobs[0]))
        here = launcher_name(self.config) == HERE
        told = known if here else None
        work = Launch(folder.absolute(), jobs, plugins, hidden, total, done, at_once, self.budget, search, told)
        config = limited(self.config, at_once)
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(folder)
        hydra_launcher = Plugins.instance().instantiate_launcher(
            self.hydra_context, task_function=lambda _: work.run_one(), config=config
        )
        everything, started, cwd = [*known, *jobs], time.time(), Path.cwd()
        for job in jobs:
            (job.folder / LEFT_OUT).unlink(missing_ok=True)
        with (
            users_environment(),
            progress_shown(
                lambda: observe(everything, total, at_once, started, done - len(known), cwd), elsewhere=not here
            ),
        ):
            for wave in waves(self.config, len(jobs), at_once):
                hydra_launcher.launch([jobs[i].launched for i in wave], initial_job_idx=wave.start)
        report_lost(jobs)
