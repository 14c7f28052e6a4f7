"""The command `train`: a Hydra application whose configuration is checked before Hydra acts on it."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bbframe
from bbframe.app.help import usage

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bbframe.app.run_request import RunRequest
    from bbframe.sweep.jobs import Job

RUN_FOLDER = "BBFRAME_RUN_FOLDER"  # tells the other processes of a run on several devices where it writes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit code is 0 when all of it succeeded."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if {"-h", "--help"} & set(arguments):
            return show_help(arguments)
        if "--version" in arguments:
            return show_version()
        return start(arguments)
    except KeyboardInterrupt:
        last = Path(os.environ.get(RUN_FOLDER, os.devnull), "checkpoints", "last.ckpt")
        print(f"interrupted; this continues it: python train.py ckpt_path={last}" if last.is_file() else "interrupted")
        return 130
    except Exception as error:
        return explain(error, arguments)


def show_help(arguments: Sequence[str]) -> int:
    """Print the help; with plugins or a folder of one's own, their parts too."""
    groups = None
    if {"--plugin", "-cd", "--config-dir"} & {argument.partition("=")[0] for argument in arguments}:
        command = command_of(arguments)
        from bbframe.app.hydra_settings import choices

        groups = choices(command.config_dir)
    print(usage(groups))
    return 0


def show_version() -> int:
    """Print this program's version and Hydra's."""
    from importlib.metadata import version

    print(f"bbframe {bbframe.__version__}, hydra-core {version('hydra-core')}")
    return 0


def command_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, its plugins imported."""
    from bbframe.app.command_line import parse_arguments
    from bbframe.app.execution import load_plugins

    command = parse_arguments(arguments)
    load_plugins(command.plugin)
    return command


def start(arguments: Sequence[str]) -> int:
    """Check the whole command, then hand it to Hydra."""
    from bbframe.app.composition import ERRORS, composition, register_everything
    from bbframe.app.run_request import RunRequest
    from bbframe.app.sweeper import FailedJobs

    command = command_of(arguments)
    further, job = [], None
    if command.shell_completion:
        register_everything(())
    else:
        with composition(**command.places) as compose:
            request = RunRequest(compose, command.overrides)
            if command.cfg:
                print(shown(request, command))
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
    from bbframe.app.command_line import quoted

    if command.multirun or sweeps(request.config):
        from bbframe.app.text_options import as_text

        check_sweeper(request.config)
        command.overrides = as_text(request.config, request.overrides)
        return ([] if command.multirun else ["hydra.mode=MULTIRUN"]), None  # Hydra 1.4 takes it from no recipe
    from bbframe.app.run_folder import make_run_folder
    from bbframe.run.configuration import parse_configuration
    from bbframe.sweep.jobs import Job

    request = request.with_text()
    plan = parse_configuration(request.data)  # before a folder is made
    folder = make_run_folder(request.config, request.data, os.environ.get(RUN_FOLDER))
    command.overrides = request.overrides
    os.environ[RUN_FOLDER] = str(folder)
    return [f"hydra.run.dir={quoted(folder)}"], Job(plan, request.data, request.record, folder)


def sweeps(config: DictConfig) -> bool:
    """Whether the configuration itself, such as a recipe, asks for several runs."""
    return str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"


def check_sweeper(config: DictConfig) -> None:
    """Refuse every sweeper but ours, which checks each job before Hydra acts on it."""
    if (name := config.hydra.runtime.choices.get("hydra/sweeper")) != "bbframe":
        raise ValueError(
            f"hydra/sweeper={name} cannot check jobs first; leave it out: bbframe's own runs every combination of the "
            "values that you list"
        )


def run_hydra(command: argparse.Namespace, further: Sequence[str], job: Job | None) -> None:
    """Let Hydra do what the command says; `job` is what it runs when it is one run."""
    import hydra

    from bbframe.app import execution
    from bbframe.app.command_line import hydra_arguments
    from bbframe.app.composition import secrets
    from bbframe.app.execution import errors_raised, users_environment
    from bbframe.app.hydra_settings import VERSION
    from bbframe.app.places import CONF

    said = io.StringIO()  # Hydra's own words about a run that failed, whose error is explained in one line
    with ExitStack() as stack:

        @hydra.main(config_path=str(CONF), config_name="config", **VERSION)
        def train(_: DictConfig) -> None:
            assert job is not None  # of a sweep, the sweeper runs the jobs
            try:
                with users_environment():
                    execution.execute(execution.placed(job), secrets())
            except Exception:
                stack.enter_context(redirect_stderr(said))
                raise

        with errors_raised(hydra_arguments(command, further)):
            train()


def shown(request: RunRequest, command: argparse.Namespace) -> str:
    """The configuration, Hydra's or both as YAML, secrets masked; interpolations stay unless `--resolve` is given."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from bbframe.app.composition import secrets
    from bbframe.files import dump_yaml
    from bbframe.run.masking import mask_secrets

    data, config = request.data, request.config
    if command.resolve and command.cfg != "job":
        HydraConfig.instance().set_config(config)
        config = config.copy()
        OmegaConf.resolve(config.hydra)  # what no run knows yet, such as the number of a job, becomes ???
    raw: Any = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    settings = {key: value for key, value in raw.pop("hydra").items() if key not in ("help", "hydra_help")}
    ours = {**raw, **data} if command.resolve or request.source else {**data, **raw}
    ours["backbone_name"] = data["backbone_name"]
    whole = {"job": ours, "hydra": {"hydra": settings}, "all": {**ours, "hydra": settings}}[command.cfg]
    masked: Any = mask_secrets(whole, set(secrets()))
    if command.package in (None, "_global_"):
        return dump_yaml(masked).rstrip()
    for part in command.package.split("."):
        if not isinstance(masked, dict) or part not in masked:
            raise ValueError(f"--package {command.package}: the configuration has no {part!r}")
        masked = masked[part]
    if not isinstance(masked, (dict, list)):
        return str(masked)
    return f"# @package {command.package}\n{dump_yaml(masked).rstrip()}"


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error: one line for what the user can mend, a traceback for anything else or on request."""
    from bbframe.app.execution import unexpected

    if unexpected(error) or "debug=true" in map(str.lower, arguments):
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1
