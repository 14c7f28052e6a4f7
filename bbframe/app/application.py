"""A command of `train` as a Hydra application: checked first, then shown, run or swept."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from enum import Enum
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from bbframe.app import execution
from bbframe.app.command_line import hydra_arguments, quoted
from bbframe.app.composition import ERRORS, composition, register_everything
from bbframe.app.execution import RUN_FOLDER_VARIABLE, errors_raised, users_environment
from bbframe.app.hydra_settings import VERSION
from bbframe.app.places import CONF
from bbframe.app.run_folder import make_run_folder
from bbframe.app.run_request import RunRequest
from bbframe.app.sweep_resume import resumed
from bbframe.app.sweeper import FailedJobs
from bbframe.files import dump_yaml
from bbframe.run.masking import mask_secrets, outward, remembered
from bbframe.sweep.jobs import Job


def start(command: argparse.Namespace) -> int:
    """Check the whole command, then hand it to Hydra; returns the exit code."""
    further: list[str] = []
    job = None
    resumed(command)
    if command.shell_completion:
        register_everything(())
    else:
        with composition(**command.places) as compose:
            request = RunRequest(compose, command.overrides)
            if command.cfg:
                print(shown(request, command))
                return 0
            if command.dry_run:
                print(tried(request, command))
                return 0
            if not (command.info or command.hydra_help):
                further, job = checked(request, command)
    try:
        run_hydra(command, further, job)
    except FailedJobs:
        return 1
    except ERRORS as error:
        raise ValueError(" ".join((str(error) or str(error.__cause__)).split())) from error
    return 0


def checked(request: RunRequest, command: argparse.Namespace) -> tuple[list[str], Job | None]:
    """Further overrides for Hydra, and the one job of a command; None for a sweep, whose sweeper checks its jobs.

    The overrides of the command become those of the request, with text as text.
    """
    from bbframe.app.text_options import as_text  # these import torch
    from bbframe.run.configuration import parse_configuration

    if command.multirun or sweeps(request.config):
        if (sweeper := request.config.hydra.runtime.choices.get("hydra/sweeper")) != "bbframe":
            raise ValueError(
                f"hydra/sweeper={sweeper} cannot check jobs first; leave it out: bbframe's own runs every combination "
                "of the values that you list"
            )
        command.overrides = as_text(request.config, request.for_sweeper)
        return ([] if command.multirun else ["hydra.mode=MULTIRUN"]), None  # Hydra 1.4 takes it from no recipe
    request = request.with_text()
    plan = parse_configuration(request.data)  # before a folder is made
    plan.check_machine()
    folder = make_run_folder(request.config, request.data, os.environ.get(RUN_FOLDER_VARIABLE))
    command.overrides = request.overrides
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    return [f"hydra.run.dir={quoted(folder)}"], Job(plan, request.data, request.record, folder)


def tried(request: RunRequest, command: argparse.Namespace) -> str:
    """What a dry run finds, as a table or as JSON. Raises ValueError for a sweep, and for all that a run would."""
    if request.swept or sweeps(request.config):
        what = " and ".join(request.swept) or "hydra.mode=MULTIRUN"
        raise ValueError(f"--dry-run is for one run, and {what} makes a sweep; give one value, or hydra.mode=RUN")
    request = request.with_text()

    from bbframe.run.configuration import parse_configuration  # these import torch
    from bbframe.run.dry_run import dry_run, dry_run_table

    plan = parse_configuration(request.data)
    plan.check_machine()
    logging.getLogger("bbframe").disabled = command.json  # the terminal then has the JSON alone
    facts = dry_run(plan, request.data, request.record, remembered())
    return outward(json.dumps(facts, indent=2) if command.json else f"\n{dry_run_table(facts)}")


def sweeps(config: DictConfig) -> bool:
    """Whether the configuration itself, such as a recipe, asks for several runs."""
    return str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"


def run_hydra(command: argparse.Namespace, further: Sequence[str], job: Job | None) -> None:
    """Let Hydra do what the command says; `job` is what it runs when it is one run."""
    said = io.StringIO()  # Hydra's own words about a run that failed, whose error is explained in one line
    with ExitStack() as stack:

        def train(_: DictConfig) -> None:
            assert job is not None  # of a sweep, the sweeper runs the jobs
            try:
                with users_environment():
                    execution.execute(execution.placed(job), remembered())
            except Exception:
                stack.enter_context(redirect_stderr(said))
                raise

        train.__module__ = "bbframe.app.train"  # whose last word is hydra.job.name
        with errors_raised(hydra_arguments(command, further)):
            hydra.main(config_path=str(CONF), config_name="config", **VERSION)(train)()


def _resolved(node: Any) -> Any:
    """The plain data of a node; what no run knows yet, such as the number of a job, is ???."""

    def value(key: Any) -> Any:
        try:
            return _resolved(node[key])
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            return "???"

    if OmegaConf.is_dict(node):
        return {key: value(key) for key in node}
    if OmegaConf.is_list(node):
        return [value(index) for index in range(len(node))]
    return node.name if isinstance(node, Enum) else node


def shown(request: RunRequest, command: argparse.Namespace) -> str:
    """The configuration, Hydra's or both as YAML, secrets masked; interpolations stay unless `--resolve` is given."""
    data = request.data
    raw: Any = OmegaConf.to_container(request.config, resolve=False, enum_to_str=True)
    if command.resolve and command.cfg != "job":
        HydraConfig.instance().set_config(request.config)
        config = OmegaConf.create(raw)
        OmegaConf.copy_cache(request.config, config)  # the same moment for every ${now:...}
        raw["hydra"] = _resolved(config.hydra)
    settings = {key: value for key, value in raw.pop("hydra").items() if key not in ("help", "hydra_help")}
    ours = {**raw, **data} if command.resolve or request.source else {**data, **raw}
    ours["backbone_name"] = data["backbone_name"]
    whole = {"job": ours, "hydra": {"hydra": settings}, "all": {"hydra": settings, **ours}}[command.cfg]
    masked: Any = mask_secrets(whole)
    if command.package in (None, "_global_"):
        return dump_yaml(masked).rstrip()
    for part in command.package.split("."):
        if not isinstance(masked, dict) or part not in masked:
            raise ValueError(f"--package {command.package}: the configuration has no {part!r}")
        masked = masked[part]
    if not isinstance(masked, (dict, list)):
        return str(masked)
    return f"# @package {command.package}\n{dump_yaml(masked).rstrip()}"
