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
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from bbframe.app import execution
from bbframe.app.command_line import hydra_arguments, key_of, quoted
from bbframe.app.composition import ERRORS, Compose, composition, register_everything
from bbframe.app.execution import errors_raised, users_environment
from bbframe.app.hydra_settings import VERSION
from bbframe.app.places import CONF
from bbframe.app.run_folder import RunFolder, make_run_folder
from bbframe.app.run_request import LAST, RunRequest
from bbframe.app.same_options import check_same, options_of
from bbframe.app.start_ledger import agent
from bbframe.app.sweep_resume import resumed
from bbframe.app.sweeper import FailedJobs
from bbframe.files import dump_yaml
from bbframe.run.agreement import Facts, meeting
from bbframe.run.masking import mask_secrets, outward, remembered
from bbframe.run.processes import RUN_FOLDER_VARIABLE, is_first, launched_by_lightning, launcher, started
from bbframe.sweep.jobs import Job

if TYPE_CHECKING:
    from bbframe.run.configuration import Configuration


def start(command: argparse.Namespace) -> int:
    """Check the whole command, then hand it to Hydra; returns the exit code."""
    further: list[str] = []
    job = None
    resumed(command)
    if command.shell_completion:
        register_everything(())
    else:
        with composition(**command.places) as compose:
            if command.cfg:
                print(shown(RunRequest(compose, command.overrides), command))
                return 0
            if command.dry_run:
                print(tried(RunRequest(compose, command.overrides), command))
                return 0
            if command.info or command.hydra_help:
                RunRequest(compose, command.overrides)  # raises what is wrong with it
            elif (begun := checked(compose, command)) is None:
                return 0
            else:
                further, job = begun
    try:
        run_hydra(command, further, job)
    except FailedJobs:
        return 1
    except ERRORS as error:
        raise ValueError(" ".join((str(error) or str(error.__cause__)).split())) from error
    return 0


def checked(compose: Compose, command: argparse.Namespace) -> tuple[list[str], Job | None] | None:
    """Further overrides for Hydra, and the one job of a command; None for a sweep, whose sweeper checks its jobs.

    None in all when the run has ended well before. All processes of a start are asked before anything is written. The
    overrides of the command become those of the request, with text as text.
    """
    words, error, request, plan = list(command.overrides), None, None, None
    try:
        request = RunRequest(compose, command.overrides)
        if command.multirun or sweeps(request.config):
            return checked_sweep(request, command)
        request, plan = checked_run(request)
    except ValueError as found:
        error = found
    place = found_folder(request, plan, error, words)
    if place.finished:
        if is_first():
            print(f"this run has ended well, and is not repeated: {place.folder}")
        return None
    assert request is not None
    command.overrides = request.overrides
    own = [] if is_first() else silent_overrides(command)
    job = Job(plan, request.data, request.record, place.folder, goes_on_from=place.goes_on_from)
    return [f"hydra.run.dir={quoted(place.folder)}", *own], job


def checked_sweep(request: RunRequest, command: argparse.Namespace) -> tuple[list[str], None]:
    """Further overrides for the Hydra of a sweep. Raises ValueError for what no sweep can have."""
    from bbframe.app.text_options import as_text  # imports torch

    if (sweeper := request.config.hydra.runtime.choices.get("hydra/sweeper")) != "bbframe":
        raise ValueError(
            f"hydra/sweeper={sweeper} cannot check jobs first; leave it out: bbframe's own runs every combination "
            "of the values that you list"
        )
    if request.goes_on:
        raise ValueError(f"ckpt_path={LAST} is for one run; a sweep goes on by resume=<sweep>")
    if started() > 1:
        raise ValueError(
            f"{launcher()} has started {started()} processes, and a sweep is one, which starts its jobs by itself; "
            "start it once, and choose hydra/launcher=submitit_slurm, ray or joblib for more machines or devices"
        )
    command.overrides = as_text(request.config, request.for_sweeper)
    return ([] if command.multirun else ["hydra.mode=MULTIRUN"]), None  # Hydra 1.4 takes it from no recipe


def checked_run(request: RunRequest) -> tuple[RunRequest, Configuration]:
    """The request with text as text, and its plan, which this machine can carry out. Raises ValueError."""
    from bbframe.run.configuration import parse_configuration  # imports torch

    request = request.with_text()
    plan = parse_configuration(request.data)
    plan.check_machine()
    return request, plan


def found_folder(
    request: RunRequest | None, plan: Configuration | None, error: ValueError | None, words: list[str]
) -> RunFolder:
    """The folder of a run, on which all processes of this start agree; raises the `error` of any of them in all."""
    if launched_by_lightning():
        if error is not None:
            raise error
        return RunFolder.of(json.loads(os.environ[RUN_FOLDER_VARIABLE]))

    def make(facts: list[Facts]) -> Facts:
        assert request is not None
        check_same([f["options"] for f in facts])
        return make_run_folder(request, words, sorted({f["agent"] for f in facts if f["agent"]})).as_facts()

    mine = {"agent": agent(), "options": options_of(request.data) if request and plan else {}}
    group = meeting(plan.trainer.num_nodes, plan.trainer.devices) if plan else meeting(1, "auto")
    if group is not None:
        told = group.agree(error, mine, make)
    elif error is not None:
        raise error
    else:
        told = make([mine])
    os.environ[RUN_FOLDER_VARIABLE] = json.dumps(told)
    return RunFolder.of(told)


def silent_overrides(command: argparse.Namespace) -> list[str]:
    """Overrides by which Hydra writes nothing: the first process has all of its files."""
    files = ("hydra/job_logging", "hydra/hydra_logging", "hydra.output_subdir")
    logging = ("hydra.job_logging", "hydra.hydra_logging")
    command.overrides = [o for o in command.overrides if key_of(o) not in files and not key_of(o).startswith(logging)]
    return ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]


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
