"""The sweeper `hydra/sweeper=bbframe`: every combination, checked first, isolated, and compared in one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from bbframe import registry
from bbframe.app.combinations import expand
from bbframe.app.command_line import key_of, quoted, readable
from bbframe.app.composition import settings_alone
from bbframe.app.execution import execute_isolated, users_environment
from bbframe.app.hydra_settings import SWEEP_FOLDER, check_params, check_settings, settled
from bbframe.app.run_folder import new_folder
from bbframe.app.run_request import RunRequest
from bbframe.run.masking import remembered
from bbframe.sweep.jobs import Job, check_new, one_device, report_failure, report_lost


class FailedJobs(Exception):
    """Some jobs of a sweep failed; each has been reported."""


class CheckedSweeper(Sweeper):
    """Hydra's interface to the sweep; `params` maps keys to their values, as a recipe gives them."""

    hydra_context: HydraContext
    config: DictConfig

    def __init__(self, params: DictConfig | None = None) -> None:
        self.params: dict[str, Any] = {str(key): value for key, value in (params or {}).items()}
        check_params(self.params, "configuration")  # what it is now, whatever its interpolations were before

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Check every combination, run those that pass by Hydra's launcher, and write the table.

        Raises ValueError when no combination passes, and FailedJobs when one of them failed.
        """
        from bbframe.sweep import leaderboard

        given = {key_of(override) for override in arguments}
        params = [readable(f"{key}={value}", True) for key, value in self.params.items() if key not in given]
        combinations = expand([*params, *arguments], self.hydra_context.config_loader)
        jobs, overrides, failed, folder = self._checked(combinations)
        print(f"{len(combinations)} runs in {folder}")
        for index, (combination, error) in enumerate(failed, start=len(jobs)):
            report_failure(folder / f"{index}_failed", combination, error)
        try:
            self._launch(jobs, overrides, folder)
            report_lost(jobs)
        finally:
            print(f"\n{leaderboard.write(folder)}\n{folder}")
        if failed or not all((job.folder / "metrics.json").exists() for job in jobs):
            raise FailedJobs

    def _checked(
        self, combinations: Sequence[list[str]]
    ) -> tuple[list[Job], list[list[str]], list[tuple[list[str], ValueError]], Path]:
        """The jobs that pass, the overrides of each for Hydra, the others with their errors, and the folder."""
        from bbframe.run.configuration import parse_configuration

        passed, failed = [], []
        for combination in combinations:
            try:
                request = RunRequest(self._compose, combination)
                request.data["trainer"]["devices"] = one_device(request.data["trainer"]["devices"])
                plan = parse_configuration(request.data)
                plan.check_machine()
                passed.append((request, plan))
            except ValueError as error:
                failed.append((combination, error))
        if not passed:
            raise ValueError("\n".join(dict.fromkeys(str(error) for _, error in failed)))
        first = passed[0][0]
        OmegaConf.copy_cache(self.config, first.config)
        folder = Path(settled(first.config, first.data, "hydra.sweep.dir"))
        stated = OmegaConf.to_container(first.config.hydra, resolve=False)["sweep"]["dir"]  # type: ignore
        if stated == SWEEP_FOLDER:
            folder = new_folder(folder)
        else:
            check_new(folder)
        jobs, overrides = [], []
        for number, (request, plan) in enumerate(passed):
            place = settled(request.config, request.data, "hydra.sweep.subdir", number)
            if Path(os.path.normpath(place)).is_absolute() or os.path.normpath(place).startswith(".."):
                raise ValueError(f"hydra.sweep.subdir={place} must lead below hydra.sweep.dir")
            jobs.append(Job(plan, request.data, request.record, folder / place))
            folders = [f"hydra.sweep.dir={quoted(folder)}", f"hydra.sweep.subdir={quoted(place)}"]
            overrides.append([*request.overrides, *folders])
        if len({job.folder for job in jobs}) < len(jobs):
            raise ValueError("hydra.sweep.subdir gives two jobs one folder; put ${hydra.job.num} into it")
        return jobs, overrides, failed, folder

    def _compose(self, overrides: list[str]) -> DictConfig:
        """Compose one job by the loader of the application that runs."""
        hydra_overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        given, name = [*hydra_overrides, *overrides], self.config.hydra.job.config_name
        loader = self.hydra_context.config_loader
        config = loader.load_configuration(name, given, run_mode=RunMode.RUN, from_shell=False)
        check_settings(config, settings_alone(given), given)
        return config

    def _launch(self, jobs: Sequence[Job], overrides: Sequence[list[str]], folder: Path) -> None:
        """Hand the jobs to the launcher that the configuration names: Hydra's basic one, joblib, submitit."""
        plugins, hidden = [plugin.module for plugin in registry.plugins()], remembered()

        def work(_: Any) -> bool:
            return execute_isolated(jobs, plugins, hidden)

        config = self.config.copy()
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(folder)
        launcher = Plugins.instance().instantiate_launcher(self.hydra_context, task_function=work, config=config)
        with users_environment():
            launcher.launch(overrides, initial_job_idx=0)
