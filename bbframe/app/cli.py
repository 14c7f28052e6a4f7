"""The console command `bbframe`: train as `python train.py` does, describe backbones and data, predict, publish."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bbframe.app import train
from bbframe.app.data_command import audit_images
from bbframe.app.embed_command import embed
from bbframe.app.export_command import EXPORT_HELP, export
from bbframe.app.help import (
    COMPARE_HELP,
    DATA_HELP,
    EMBED_HELP,
    HELP,
    INFO_HELP,
    LIST_HELP,
    PREDICT_HELP,
    RANK_HELP,
    REPORT_HELP,
    RUNS_HELP,
)
from bbframe.app.push_command import push
from bbframe.app.rank_command import rank_backbones
from bbframe.app.report_command import report
from bbframe.app.run_commands import compare, runs
from bbframe.app.serve_command import serve
from bbframe.app.shard_command import SHARD_HELP, write_shard_set
from bbframe.app.sharing_help import PUSH_HELP, SERVE_HELP
from bbframe.app.text_arguments import typed_arguments
from bbframe.schema import nearest, parse

if TYPE_CHECKING:
    from bbframe.predict.predict_options import PredictOptions


def main() -> int:
    """Run a sub-command; returns its exit code."""
    return train.exit_code(_run, sys.argv[1:] or ["--help"])


def _run(arguments: list[str]) -> int:
    command, *rest = arguments
    if command in ("-h", "--help"):
        print(HELP)
        return 0
    if command == "--version":
        return train.show_version()
    if command in ("-sc", "--shell-completion"):
        return complete_words(arguments)
    if command == "train":
        return train.main(rest)
    if command not in COMMANDS:
        forgotten = "=" in command or command.startswith("-")
        meant = "predict" if any(word.startswith("images=") for word in arguments) else "train"
        hint = f"; did you mean 'bbframe {' '.join([meant, *arguments])}'?" if forgotten else None
        raise ValueError(f"no command {command!r}{hint or nearest(command, ['train', *COMMANDS])}")
    if command == "data" and rest[:1] == ["shard"]:
        command, rest = "data shard", rest[1:]
    run, text = COMMANDS[command]
    if {"-h", "--help"} & set(rest):
        print(text)
        return 0
    return run(rest)


def complete_words(arguments: Sequence[str]) -> int:
    """Complete the word below the cursor: a sub-command, or what Hydra completes behind `train`, `info`, `data`."""
    line = os.environ.get("COMP_LINE", "")
    if not any(argument.startswith("query=") for argument in arguments):
        return train.main(arguments)
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        names = dict.fromkeys(["train", *(name.partition(" ")[0] for name in COMMANDS)])
        print("\n".join(name for name in names if name.startswith("".join(words[1:]))))
        return 0
    if words[1] not in ("train", "info", "data"):
        return 0
    os.environ["COMP_LINE"] = re.sub(rf"(?<=\s){words[1]}\s+", "", line, count=1)
    return train.main(arguments)


def print_catalog(arguments: list[str]) -> int:
    """Print the catalog; a file that describes no backbone is an error of one line, after the others."""
    from bbframe.app.command_line import existing_folder, parsed_arguments
    from bbframe.app.composition import composition, every_choice
    from bbframe.app.execution import load_plugins
    from bbframe.app.hydra_settings import choices
    from bbframe.app.places import CONF

    parser = argparse.ArgumentParser(prog="bbframe list", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--plugin", action="append", default=[])
    command = parsed_arguments(parser, arguments, "bbframe list --help")
    load_plugins(command.plugin)
    folder = existing_folder("config-dir", command.config_dir)

    from bbframe.app.catalog import line, listing

    with composition(folder) as compose:
        known = choices(folder)["backbone"]
        chosen = [name for name in known if command.part.lower() in name.lower()]
        if not chosen:
            raise ValueError(f"no backbone has {command.part!r} in its name{nearest(command.part, known)}")
        found = every_choice(compose, "backbone", chosen)
    lines, wrong = [], []
    for choice, options in found.items():
        try:
            if isinstance(options, ValueError):
                raise options
            lines.append(line(choice, options))
        except ValueError as error:
            files = (home / "backbone" / f"{choice}.yaml" for home in (CONF, folder) if home)
            file = next((os.path.relpath(path) for path in files if path.is_file()), f"backbone={choice}")
            wrong.append(f"error: {file}: {str(error).removeprefix(f'backbone/{choice}.yaml: ')}")
    if lines or command.json:
        print(json.dumps(lines, indent=2) if command.json else listing(lines))
    print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
    return 1 if wrong else 0


def info(arguments: list[str]) -> int:
    """Print what the backbone of a configuration is and costs."""
    command = train.command_of([argument for argument in arguments if argument != "--json"])
    if command.dry_run:
        raise ValueError("info has no --dry-run; type bbframe train --dry-run ...")

    from bbframe.app.application import shown, sweeps
    from bbframe.app.composition import composition
    from bbframe.app.run_request import RunRequest

    with composition(**command.places) as compose:
        request = RunRequest(compose, command.overrides)
        given = {override.partition("=")[0] for override in command.overrides}
        axes = (request.config.hydra.sweeper.get("params") or {}) if sweeps(request.config) else {}
        several = [f"{key}={value}" for key, value in axes.items() if key not in given] + request.swept
        if several:
            raise ValueError(f"info describes one backbone; give one value of {' and of '.join(several)}")
        if command.cfg:
            print(shown(request, command))
            return 0
        data = request.with_text().data

    from bbframe.app.catalog import describe, description
    from bbframe.run.masking import outward

    facts = describe(data)
    print(outward(json.dumps(facts, indent=2) if "--json" in arguments else description(facts)))
    return 0


def predict(arguments: list[str]) -> int:
    """Predict as a command line of key=value says."""
    options = prediction_options(arguments)
    from bbframe.predict.prediction import predict_images

    return predict_images(options)


def prediction_options(arguments: Sequence[str]) -> PredictOptions:
    """The options of a prediction from a command line; ValueError for what is none."""
    from bbframe.predict.predict_options import PredictOptions

    return parse(PredictOptions, typed_arguments(arguments, "predict", ("run", "out")), "predict")


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "list": (print_catalog, LIST_HELP),
    "info": (info, INFO_HELP),
    "rank": (rank_backbones, RANK_HELP),
    "embed": (embed, EMBED_HELP),
    "data": (audit_images, DATA_HELP),
    "data shard": (write_shard_set, SHARD_HELP),
    "predict": (predict, PREDICT_HELP),
    "export": (export, EXPORT_HELP),
    "push": (push, PUSH_HELP),
    "serve": (serve, SERVE_HELP),
    "runs": (runs, RUNS_HELP),
    "compare": (compare, COMPARE_HELP),
    "report": (report, REPORT_HELP),
}
