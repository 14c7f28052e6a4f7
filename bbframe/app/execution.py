"""What runs once everything has been checked: one job, in this process or in a launcher's."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from bbframe import registry
from bbframe.files import dump_yaml, read_yaml, write_text
from bbframe.run.masking import mask_overrides, mask_secrets
from bbframe.run.processes import is_first
from bbframe.sweep.jobs import Job

FULL_ERROR = "HYDRA_FULL_ERROR"  # the user's wish for tracebacks, and what makes Hydra raise instead of exiting


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's modules of parts, which may lie in the current folder."""
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in modules:
        registry.load_plugin(module)


def execute(job: Job, secrets: frozenset[str]) -> None:
    """Train and test; everything heavy is imported here, after the configuration has been checked."""
    set_verbosity()
    from bbframe.run.training_run import run

    run(job.parsed(), job.config, job.overrides, job.folder, secrets, goes_on_from=job.goes_on_from)


def set_verbosity() -> None:
    """Show what is for debugging where `hydra.verbose=true` asks for it."""
    if HydraConfig.get().verbose is True:
        logging.getLogger("bbframe").setLevel(logging.DEBUG)


def placed(job: Job) -> Job:
    """The job with the folder that Hydra says, which is absolute when Hydra changed the working directory."""
    settings = HydraConfig.get()
    if settings.output_subdir is not None and is_first():  # Hydra has written its record there
        for file in Path(settings.runtime.output_dir, settings.output_subdir).glob("*.yaml"):
            content = read_yaml(file, object)
            masked: Any = mask_overrides(content) if isinstance(content, list) else mask_secrets(content)
            write_text(file, dump_yaml(masked))
    return replace(job, folder=Path(settings.runtime.output_dir)) if settings.job.chdir else job


# the command line and HYDRA_FULL_ERROR as the user gave them, while Hydra works with others
_users: tuple[list[str], str | None] = ([], None)


@contextmanager
def errors_raised(arguments: Sequence[str]) -> Iterator[None]:
    """Give Hydra its command line, and let it raise errors, which are then explained in one line."""
    global _users
    _users = (sys.argv, os.environ.get(FULL_ERROR))
    with _process([sys.argv[0], *arguments], "1"):
        yield


@contextmanager
def users_environment() -> Iterator[None]:
    """Undo `errors_raised` while a run works, whose child processes repeat the user's command."""
    with _process(*_users):
        yield


@contextmanager
def _process(command_line: list[str], full_error: str | None) -> Iterator[None]:
    before = (sys.argv, os.environ.get(FULL_ERROR))
    _set_process(command_line, full_error)
    try:
        yield
    finally:
        _set_process(*before)


def _set_process(command_line: list[str], full_error: str | None) -> None:
    sys.argv = command_line
    os.environ.pop(FULL_ERROR, None)
    if full_error is not None:
        os.environ[FULL_ERROR] = full_error


def unexpected(error: Exception) -> bool:
    """Whether an error deserves a traceback: what the user can mend is a ValueError, and needs none."""
    return not isinstance(error, ValueError) or os.environ.get(FULL_ERROR) == "1"
