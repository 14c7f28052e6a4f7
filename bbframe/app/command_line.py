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
    for flag in ("--hydra-help", "--version", "--resolve", "--dry-run", "--json"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    parser.add_argument("-cn", "--config-name", default="config")
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--plugin", action="append", default=[])
    command = parsed_arguments(parser, arguments, "--help")
    command.config_path = existing_folder("config-path", command.config_path)
    command.config_dir = existing_folder("config-dir", command.config_dir)
    if command.experimental_rerun is not None:
        raise ValueError("--experimental-rerun unpickles a file, which can run code; type rerun=<run folder>")
    command.config_name = command.config_name.removesuffix(".yaml")
    modes = ("run", "multirun", "cfg", "info", "shell_completion", "dry_run")
    if len(chosen := [mode for mode in modes if getattr(command, mode)]) > 1:
        raise ValueError(f"{_flag(chosen[0])} and {_flag(chosen[1])} exclude each other; give one of them")
    if command.resolve and not command.cfg:
        raise ValueError("--resolve belongs to --cfg; write --cfg job --resolve")
    if command.package and not command.cfg:
        raise ValueError("--package belongs to --cfg; write --cfg job --package trainer")
    if command.json and not command.dry_run:
        raise ValueError("--json belongs to --dry-run; a run leaves its results in metrics.json")
    for override in command.overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(f"{override!r} is no override; write key=value, such as backbone=resnet")
    command.search_path = []
    if not command.shell_completion:
        overrides = [readable(override, command.multirun) for override in command.overrides]
        command.search_path, command.overrides = _search_path(overrides)
    places = ("config_dir", "config_name", "config_path", "search_path")
    command.places = {place: getattr(command, place) for place in places}
    return command


def parsed_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str], help_flag: str) -> argparse.Namespace:
    """What a parser makes of arguments. Raises ValueError that names the one it does not know, and the help."""
    try:
        command, foreign = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; {help_flag} shows what there is") from error
    if foreign:
        raise ValueError(f"unknown argument {foreign[0]!r}; {help_flag} shows what there is")
    return command


def _search_path(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The places that `hydra.searchpath=[...]` names, and the other overrides."""
    path: list[str] = []
    others = [override for override in overrides if key_of(override) != "hydra.searchpath"]
    for override in overrides:
        if key_of(override) == "hydra.searchpath" and (parsed := parsed_value(override)) is not None:
            value = parsed.value()
            if not isinstance(value, list) or not value:
                raise ValueError(f"{override}: must be a list of places, such as hydra.searchpath=[file:///my/conf]")
            texts = [str(place) for place in value]
            path += [text if "://" in text else f"file://{Path(text).expanduser().absolute()}" for text in texts]
    return path, others


def existing_folder(flag: str, text: str | None) -> Path | None:
    """The folder that a flag names, None without the flag; raises ValueError when there is none."""
    if text is None:
        return None
    folder = Path(text).expanduser().absolute()
    if text.startswith("pkg://"):
        raise ValueError(f"--{flag} {text} is a package; write hydra.searchpath=[{text}]")
    if not folder.is_dir():
        raise ValueError(f"--{flag} {text}: no such folder")
    return folder


def hydra_arguments(command: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The command line that Hydra itself parses, with further overrides behind the user's."""
    values = ("config_name", "config_path", "config_dir", "info")
    line = [word for name in values if (value := getattr(command, name)) for word in (_flag(name), str(value))]
    line += [_flag(name) for name in ("multirun", "hydra_help", "shell_completion") if getattr(command, name)]
    # given in any case, because a file's own search path would import packages
    path = [] if command.shell_completion else [f"hydra.searchpath=[{','.join(map(quoted, command.search_path))}]"]
    return [*line, *command.overrides, *path, *overrides]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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


def expand_home(data: Any) -> Any:
    """Plain data in which every text that begins with `~/` names a place in the home folder."""
    if isinstance(data, dict):
        return {key: expand_home(value) for key, value in data.items()}
    if isinstance(data, list):
        return [expand_home(value) for value in data]
    return os.path.expanduser(data) if isinstance(data, str) and re.match(r"~(?=/|$)", data) else data
