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

    from bbframe.sweep.jobs import Job

RUN_FOLDER = "BBFRAME_RUN_FOLDER"  # tells the other processes of a run on several devices where it writes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit code is 0 when all of it succeeded."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        return show_help(arguments)
    if "--version" in arguments:
        return show_version()
    try:
        return start(arguments)
    except KeyboardInterrupt:
        last = Path(os.environ.get(RUN_FOLDER, os.devnull), "checkpoints", "last.ckpt")
        print(f"interrupted; this continues it: python train.py ckpt_path={last}" if last.is_file() else "interrupted")
        return 130
    except Exception as error:
        return explain(error, arguments)


def show_help(arguments: Sequence[str]) -> int:
    """Print the help; with plugins or a folder of one's own, their parts too."""
    if not {"--plugin", "-cd", "--config-dir"} & {argument.partition("=")[0] for argument in arguments}:
        print(usage())
        return 0
    try:
        command = command_of(arguments)
        from bbframe.app.hydra_settings import choices

        print(usage(choices(command.config_dir)))
        return 0
    except Exception as error:
        return explain(error, arguments)


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
    from bbframe.app.composition import ERRORS, after_record, composed, composition, is_swept, search_path
    from bbframe.app.sweeper import FailedJobs

    command = command_of(arguments)
    if command.shell_completion:
        return shell_completion(command)
    further: list[str] = []
    job = None
    places = {"config_name": command.config_name, "config_path": command.config_path}
    with composition(command.config_dir, **places) as compose:
        single = [override for override in command.overrides if not is_swept(override)]
        config = composed(compose, after_record(single))
        several = command.multirun or str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"
        if command.cfg or command.info or command.hydra_help:
            if command.cfg:
                print(shown(compose, command))
                return 0
        elif several:
            check_sweeper(config)
            further = [] if command.multirun else ["hydra.mode=MULTIRUN"]  # Hydra 1.4 takes it from no recipe
            command.overrides = as_text(config, command.overrides)
        else:
            command.overrides, job = prepared(compose, command.overrides, single, config)
            command.overrides = after_record(command.overrides)  # Hydra composes them again
            further = [f"hydra.run.dir={quoted_folder(job)}"]
            os.environ[RUN_FOLDER] = str(job.folder)
    path, rest = search_path(command.overrides)
    if path:
        from bbframe.app.command_line import quoted

        command.overrides = [*rest, f"hydra.searchpath=[{','.join(map(quoted, path))}]"]
    try:
        run_hydra(command, further, job)
    except FailedJobs:
        return 1
    except ERRORS as error:
        raise ValueError(" ".join((str(error) or str(error.__cause__)).split())) from error
    return 0


def prepared(compose: Any, overrides: list[str], single: list[str], config: DictConfig) -> tuple[list[str], Job]:
    """The overrides with text as text, and the one job that they describe, checked, its folder made.

    `config` is what `single`, those with one value, compose to.
    """
    from bbframe.app.composition import after_record, composed, with_record
    from bbframe.run.configuration import parse_configuration
    from bbframe.sweep.jobs import Job

    typed = as_text(config, overrides)
    if typed != single:
        config = composed(compose, after_record(typed))
    data, complete = with_record(compose, typed, config)
    plan = parse_configuration(data)  # before a folder is made
    return typed, Job(plan, data, complete, run_folder(config, data))


def as_text(config: DictConfig, overrides: list[str]) -> list[str]:
    """Overrides of options that take text, such as backbone.revision=1234567, quoted where they look like numbers."""
    from bbframe.app.command_line import literal_text
    from bbframe.app.text_options import text_options

    keys = text_options(config)
    return [literal_text(override, keys) for override in overrides]


def run_folder(config: DictConfig, data: dict[str, Any]) -> Path:
    """The folder of a run, made for it: the default with a number behind it if need be, or `hydra.run.dir`."""
    from omegaconf import OmegaConf

    from bbframe.app.hydra_settings import RUN_FOLDER as DEFAULT
    from bbframe.app.hydra_settings import settled
    from bbframe.app.run_folder import named_folder, new_folder
    from bbframe.run.processes import is_first

    stated = OmegaConf.to_container(config.hydra, resolve=False)["run"]["dir"]  # type: ignore
    folder = Path(settled(config, data, "hydra.run.dir"))
    if not is_first():  # one of several processes: the first makes the folder and writes
        return folder if stated != DEFAULT else Path(os.environ.get(RUN_FOLDER, data["output_dir"]))
    return new_folder(folder) if stated == DEFAULT else named_folder(folder)


def quoted_folder(job: Job) -> str:
    """A run folder as an override gives it."""
    from bbframe.app.command_line import quoted

    return quoted(job.folder)


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


def shell_completion(command: argparse.Namespace) -> int:
    """Print the shell's completion script, or what completes its line."""
    from bbframe.app.composition import register_everything

    register_everything(())
    run_hydra(command, (), None)
    return 0


def shown(compose: Any, command: argparse.Namespace) -> str:
    """The configuration, Hydra's or both as YAML, secrets masked; interpolations stay unless `--resolve` is given."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from bbframe.app.composition import composed, secrets, with_record
    from bbframe.files import dump_yaml
    from bbframe.run.masking import mask_secrets

    config = composed(compose, command.overrides)
    data, _ = with_record(compose, command.overrides, config)
    raw: Any = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    whole = {**raw, **data} if command.resolve or data.get("rerun") or data.get("ckpt_path") else {**data, **raw}
    whole["backbone_name"] = data["backbone_name"]
    if command.cfg != "job" and command.resolve:
        HydraConfig.instance().set_config(config)
        whole["hydra"] = resolved_settings(config)
    for key in ("help", "hydra_help"):
        whole["hydra"].pop(key, None)
    if command.cfg == "job":
        del whole["hydra"]
    elif command.cfg == "hydra":
        whole = {"hydra": whole["hydra"]}
    masked: Any = mask_secrets(whole, secrets())
    if command.package in (None, "_global_"):
        return dump_yaml(masked).rstrip()
    for part in command.package.split("."):
        if not isinstance(masked, dict) or part not in masked:
            raise ValueError(f"--package {command.package}: the configuration has no {part!r}")
        masked = masked[part]
    if not isinstance(masked, (dict, list)):
        return str(masked)
    return f"# @package {command.package}\n{dump_yaml(masked).rstrip()}"


def resolved_settings(config: DictConfig) -> Any:
    """Hydra's settings with what can be known before a run resolved; the number of a job cannot."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node: Any = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)

    def settle(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: settle(item, f"{path}.{key}") for key, item in value.items()}
        if not (isinstance(value, str) and "${" in value):
            return value
        try:
            found = OmegaConf.select(config, path)
            return value if found is None else found
        except OmegaConfBaseException:
            return value

    return settle(node, "hydra")


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error: one line for what the user can mend, a traceback for anything else or on request."""
    from bbframe.app.execution import unexpected

    if unexpected(error) or "debug=true" in map(str.lower, arguments):
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return 1
