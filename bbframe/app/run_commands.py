"""`bbframe runs` and `bbframe compare`: what is read off the folders of runs that are done."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bbframe.app.command_line import parsed_arguments
from bbframe.files import visible


def runs(arguments: list[str]) -> int:
    """Print the runs below a folder."""
    parser = argparse.ArgumentParser(prog="bbframe runs", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("folder", nargs="?", default="outputs")
    parser.add_argument("--where", nargs="+", action="extend", default=[])
    parser.add_argument("--sort", action="append", default=[])
    parser.add_argument("--columns", nargs="+", action="extend", default=[])
    for flag in ("--reverse", "--json", "--csv"):
        parser.add_argument(flag, action="store_true")
    command = parsed_arguments(parser, _with_signs(arguments), "bbframe runs --help")
    if command.json and command.csv:
        raise ValueError("give one of --json and --csv")

    from bbframe.sweep.run_listing import all_columns, list_runs, listing_text, written

    sort, columns = _words(command.sort), _words(command.columns)
    if command.reverse and not sort:
        sort = ["folder"]
    if command.reverse:
        sort = [key[1:] if key.startswith("-") else f"-{key}" for key in sort]
    found, shown = list_runs(Path(command.folder).expanduser(), command.where, sort, columns)
    if command.json:
        rows = [{key: run.get(key) for key in columns} for run in found] if columns else found
        print(json.dumps(rows, indent=2))
    elif command.csv:
        names = columns or all_columns(found)
        table = [[run.get(name) for name in names] for run in found]
        cells = [[None if cell is None else visible(written(cell)) for cell in row] for row in table]
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *cells])
    else:
        print(listing_text(found, shown))
    return 0


def _with_signs(arguments: Sequence[str]) -> list[str]:
    """Arguments in which the key behind `--sort` may begin with a minus sign, which argparse takes for a flag."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--sort":
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


def _words(texts: Sequence[str]) -> list[str]:
    """Words that spaces or commas separate."""
    return [word for text in texts for word in text.split(",") if word]


def compare(arguments: list[str]) -> int:
    """Print what differs between runs."""
    parser = argparse.ArgumentParser(prog="bbframe compare", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    command = parsed_arguments(parser, arguments, "bbframe compare --help")
    if command.images < 0:
        raise ValueError(f"--images {command.images}: must be 0 or more")

    from bbframe.sweep.run_comparison import compare_runs, comparison_text

    found = compare_runs([Path(folder).expanduser() for folder in command.folders])
    print(json.dumps(found, indent=2) if command.json else comparison_text(found, command.images))
    return 0
