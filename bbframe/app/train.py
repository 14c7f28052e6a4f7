"""The command `train`, and how every command ends: its exit code, its errors in one line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import bbframe
from bbframe.app.help import usage
from bbframe.run.processes import RUN_FOLDER_VARIABLE, in_slurm_shell, is_first, launched_by_lightning, launcher, rank
from bbframe.run.stop_signals import AGAIN, BY_HAND, requeue, signals_raised


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit code is 0 when all of it succeeded."""
    return exit_code(train, list(sys.argv[1:] if arguments is None else arguments))


def exit_code(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """What a command returns; its errors are printed."""
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return interrupted(error, arguments)
    except BrokenPipeError:  # what reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from bbframe.app.execution import unexpected
        from bbframe.run.agreement import ToldByFirst
        from bbframe.run.masking import outward

        if isinstance(error, ToldByFirst) or (not is_first() and said_by_first(error)):
            return 1
        if unexpected(error) or "debug=true" in map(str.lower, arguments):
            print(outward("".join(traceback.format_exception(error))), file=sys.stderr)
        said = str(error) if RUN_FOLDER_VARIABLE in os.environ else getattr(error, "brief", str(error))
        text = said if type(error) is ValueError else " ".join(said.split())
        print(outward(f"error: {'' if is_first() else f'process {rank()}: '}{text}"), file=sys.stderr)
        return 1


def said_by_first(error: Exception) -> bool:
    """Whether the first of several processes leaves the same error in the run folder, which it prints too."""
    place = json.loads(os.environ.get(RUN_FOLDER_VARIABLE, "{}"))
    file = Path(place.get("folder", os.devnull), "error.txt")
    for _ in range(30):
        if file.is_file():
            return file.read_text(encoding="utf-8").startswith(str(error).partition("\n")[0])
        time.sleep(0.1)
    return False


def interrupted(error: KeyboardInterrupt, arguments: Sequence[str]) -> int:
    """Say how an interrupted run goes on, which was started with `arguments`.

    Returns the exit code, by which a scheduler knows that it is to be started again.
    """
    place = json.loads(os.environ.get(RUN_FOLDER_VARIABLE, "{}"))
    last = Path(place.get("folder", os.devnull), "checkpoints", "last.ckpt")
    if is_first():
        how = f"this continues it: python train.py ckpt_path={last}"
        if "ckpt_path=last" in arguments:
            how = "the same command goes on"
        elif launcher() == "slurm" and not in_slurm_shell():
            how = f"when Slurm starts this job again, it goes on in {last.parent.parent}"
        print(f"interrupted; {how}" if last.exists() else "interrupted", flush=True)
    if launched_by_lightning():
        return 0  # for anything else Lightning kills the first process, which may still be writing
    number = getattr(error, "number", signal.SIGINT)
    if number == getattr(signal, "SIGUSR1", None) and is_first():
        requeue()
    return 128 + number if number in BY_HAND else AGAIN


def train(arguments: list[str]) -> int:
    """Print help or the version, which need next to no imports, or start the application."""
    if {"-h", "--help"} & set(arguments):
        return show_help(arguments)
    if "--version" in arguments:
        return show_version()
    command = command_of(arguments)
    from bbframe.app.application import start

    with signals_raised():
        return start(command)


def show_help(arguments: Sequence[str]) -> int:
    """Print the help; with plugins or a folder of one's own, their parts too. Words behind `--help` are options."""
    first = next(i for i, word in enumerate(arguments) if word in ("-h", "--help")) + 1
    if keys := list(takewhile(lambda word: "=" not in word and word[:1] != "-", arguments[first:])):
        command = command_of([*arguments[:first], *arguments[first + len(keys) :]])
        from bbframe.app.composition import composition, plain_data
        from bbframe.app.option_help import option_help

        with composition(**command.places) as compose:
            config = plain_data(compose, command.overrides)
        print("\n\n".join(option_help(config, key) for key in keys))
        return 0
    groups = None
    if {"--plugin", "-cd", "--config-dir"} & {argument.partition("=")[0] for argument in arguments}:
        command = command_of(arguments)
        from bbframe.app.hydra_settings import choices

        groups = choices(command.config_dir)
    print(usage(groups))
    return 0


def show_version() -> int:
    """Print this program's version and Hydra's."""
    print(f"bbframe {bbframe.__version__}, hydra-core {version('hydra-core')}")
    return 0


def command_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, its plugins imported."""
    from bbframe.app.command_line import parse_arguments
    from bbframe.app.execution import load_plugins

    command = parse_arguments(arguments)
    load_plugins(command.plugin)
    return command
