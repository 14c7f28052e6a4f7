"""The command line of `train` and `info`: Hydra's flags, `--plugin`, and overrides that Hydra's grammar can read."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INFO = "all config defaults defaults-tree plugins searchpath".split()
FUNCTIONS = "int str bool float choice range interval tag sort shuffle glob json_str".split()  # of Hydra's grammar
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags, which are Hydra's and `--plugin`, and the overrides. Raises ValueError for anything else."""
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("overrides", nargs="*")
    for short, long in (("-h", "--help"), ("-m", "--multirun"), ("-r", "--run"), ("-sc", "--shell-completion")):
        parser.add_argument(short, long, action="store_true")
    for flag in ("--hydra-help", "--version", "--resolve"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    parser.add_argument("-cn", "--config-name", default="config")
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--plugin", action="append", default=[])
    try:
        command, foreign = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; --help shows what there is") from error
    if foreign:
        raise ValueError(f"unknown flag {foreign[0]!r}; --help shows what there is")
    if command.config_path is not None:
        command.config_path = existing_folder("config-path", command.config_path)
    if command.config_dir is not None:
        command.config_dir = existing_folder("config-dir", command.config_dir)
    if command.experimental_rerun is not None:
        raise ValueError("--experimental-rerun unpickles a file, which can run code; type rerun=<run folder>")
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    if len(chosen := [mode for mode in modes if getattr(command, mode)]) > 1:
        raise ValueError(f"--{chosen[0]} and --{chosen[1].replace('_', '-')} exclude each other; give one of them")
    if command.resolve and not command.cfg:
        raise ValueError("--resolve belongs to --cfg; write --cfg job --resolve")
    if command.package and not command.cfg:
        raise ValueError("--package belongs to --cfg; write --cfg job --package trainer")
    for override in command.overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(f"{override!r} is no override; write key=value, such as backbone=resnet")
    if not command.shell_completion:
        command.overrides = [readable(override, command.multirun) for override in command.overrides]
    return command


def existing_folder(flag: str, text: str) -> Path:
    """The folder that a flag names; raises ValueError when there is none."""
    folder = Path(text).expanduser().absolute()
    if text.startswith("pkg://"):
        raise ValueError(f"--{flag} {text} is a package; write hydra.searchpath=[{text}]")
    if not folder.is_dir():
        raise ValueError(f"--{flag} {text}: no such folder")
    return folder


def hydra_arguments(command: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The command line that Hydra itself parses, with further overrides behind the user's."""
    line = ["--config-name", command.config_name]
    for flag in ("config_path", "config_dir", "info"):
        if (value := getattr(command, flag)) is not None:
            line += [f"--{flag.replace('_', '-')}", str(value)]
    line += [f"--{flag.replace('_', '-')}" for flag in ("multirun", "hydra_help") if getattr(command, flag)]
    line += ["--shell-completion"] if command.shell_completion else []
    return [*line, *command.overrides, *overrides]


def key_of(override: str) -> str:
    """The key or the group that an override sets: "+a.b@c=1" -> "a.b"."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def names_hydra(override: str) -> bool:
    """Whether an override sets, adds, deletes or relocates anything of Hydra's own."""
    return "hydra" in re.split(r"\W+", override.partition("=")[0])


def quoted(value: object) -> str:
    """Text as Hydra's grammar quotes it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(value), Quote.single).with_quotes()


def readable(override: str, several: bool) -> str:
    """An override whose value Hydra's grammar reads as it stands; what it cannot read is quoted.

    The grammar has no `~`, `(`, `=` or accents in bare values, which paths have. `several`: a comma separates values,
    each of which is quoted by itself.
    """
    key, equals, value = override.partition("=")
    if not equals:
        return override
    if names_hydra(override) and re.match(r"~(?=/|$)", value):
        value = os.path.expanduser(value)
    override = f"{key}={value}"
    whole = not several and "," in value and os.path.exists(os.path.expanduser(value))
    if whole or (DRIVE.match(value) and not (several and "," in value)):
        return f"{key}={quoted(value)}"
    call = re.match(r"\s*(\w+)\s*\(", value)
    structured = value[:1] in tuple("[{'\"") or (call is not None and call[1] in FUNCTIONS)
    if structured or parsed_value(override) is not None:
        return override
    pieces = value.split(",") if several else [value]
    again = f"{key}=" + ",".join(p if parsed_value(f"{key}={p}") else quoted(p) for p in pieces)
    return again if parsed_value(again) is not None else override  # the key is at fault, which Hydra says


def parsed_value(override: str) -> Any:
    """Hydra's parsed override, or None when its grammar cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def literal_text(override: str, text_options: set[str]) -> str:
    """The override with its values quoted when the option takes text and the grammar makes numbers of them."""
    key, equals, value = override.partition("=")
    parsed = parsed_value(override) if equals and key_of(override) in text_options else None
    if parsed is None:
        return override
    pieces = value.split(",") if parsed.is_sweep_override() else [value]
    values = [parsed_value(f"{key}={piece}") for piece in pieces]
    if not all(values) or not any(isinstance(one.value(), (bool, int, float)) for one in values):
        return override
    return f"{key}=" + ",".join(quoted(piece.strip()) for piece in pieces)


def expand_home(data: Any) -> Any:
    """Plain data in which every text that begins with `~/` names a place in the home folder."""
    if isinstance(data, dict):
        return {key: expand_home(value) for key, value in data.items()}
    if isinstance(data, list):
        return [expand_home(value) for value in data]
    return os.path.expanduser(data) if isinstance(data, str) and re.match(r"~(?=/|$)", data) else data
