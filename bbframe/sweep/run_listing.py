"""The runs below a folder as a table: chosen by conditions, sorted, with the columns that are asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bbframe.files import visible
from bbframe.report.tables import aligned
from bbframe.schema import nearest
from bbframe.sweep.job_results import is_real
from bbframe.sweep.run_index import read_runs

COLUMNS = ("folder", "status", "task", "data", "backbone", "seed", "epochs", "metric", "val", "test", "seconds.total")
LONGEST = 100  # characters of an error in a terminal
CONDITION = re.compile(r"\s*([\w.\-/ ]+?)\s*(!=|>=|<=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
ORDER: dict[str, Callable[[float, float], bool]] = {
    ">": lambda one, two: one > two,
    "<": lambda one, two: one < two,
    ">=": lambda one, two: one >= two,
    "<=": lambda one, two: one <= two,
}


@dataclass(frozen=True)
class Condition:
    """A comparison such as test.accuracy>0.9 or backbone=resnet*."""

    key: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition that a text states; raises ValueError for none."""
        found = CONDITION.fullmatch(text)
        if found is None:
            raise ValueError(f"--where {text!r} is no comparison; write key=value, key!=value, or key>number")
        key, sign, value = found.groups()
        if sign in ORDER and _as_number(value) is None:
            raise ValueError(f"--where {text!r}: {sign} needs a number behind it, not {value!r}")
        return cls(key, "=" if sign == "==" else sign, value)

    def holds(self, run: Mapping[str, Any]) -> bool:
        """Whether a run fulfils the condition; a value that it lacks is neither larger nor smaller than any."""
        value, number = run.get(self.key), _as_number(self.value)
        if self.sign in ORDER:
            assert number is not None
            return is_real(value) and ORDER[self.sign](value, number)
        if is_real(value) and number is not None:
            same = value == number
        else:
            candidates = [value, *(value if isinstance(value, list) else [])]  # a list, or a word in it
            same = any(fnmatchcase(written(one), self.value.replace("[", "[[]")) for one in candidates)
        return same == (self.sign == "=")


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def written(value: Any) -> str:
    """A value as the command line has it: null, true, [32,32], text as it is."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def list_runs(
    folder: Path, where: Sequence[str] = (), sort: Sequence[str] = (), columns: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """The runs below a folder that fulfil all conditions, sorted, and the columns to show.

    A key of `sort` behind a minus sorts downwards; runs without the value come last. Configurations are read when a
    key is not one of metrics.json. Raises ValueError for a folder without runs and for a key that no run has.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one with runs below it, such as outputs")
    conditions = [Condition.parse(text) for text in where]
    asked = [*(condition.key for condition in conditions), *(key.removeprefix("-") for key in sort), *columns]
    runs = read_runs(folder)
    if not runs:
        raise ValueError(f"{folder}: no run lies below it; a run folder holds metrics.json or error.txt")
    known = {"error", *COLUMNS, *(key for run in runs for key in run)}
    if not known.issuperset(asked):
        runs = read_runs(folder, configs=True)
        known.update(key for run in runs for key in run)
    for key in asked:
        if key not in known:
            raise ValueError(f"no run below {folder} has {key!r}{nearest(key, sorted(known))}")
    chosen = [run for run in runs if all(condition.holds(run) for condition in conditions)]
    for key in reversed(sort):
        chosen = _sorted(chosen, key.removeprefix("-"), key.startswith("-"))
    shown = list(columns) or [key for key in COLUMNS if any(key in run for run in chosen or runs)]
    if not columns and any("error" in run for run in chosen):
        shown.append("error")
    return chosen, shown


def _sorted(runs: Sequence[dict[str, Any]], key: str, down: bool) -> list[dict[str, Any]]:
    """Numbers before text, what has no value last, whichever the direction."""
    numbers = [run for run in runs if is_real(run.get(key))]
    absent = [run for run in runs if run.get(key) is None]
    words = [run for run in runs if not is_real(run.get(key)) and run.get(key) is not None]
    numbers.sort(key=lambda run: run[key], reverse=down)
    words.sort(key=lambda run: written(run[key]), reverse=down)
    return [*numbers, *words, *absent]


def listing_text(runs: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The runs as a table for a terminal, numbers to the right, and how many runs there are of each status."""
    cells = []
    for key in columns:
        values = [run.get(key) for run in runs]
        column = [key.removesuffix(".total"), *map(_error if key == "error" else _cell, values)]
        numeric, width = all(value is None or is_real(value) for value in values), max(map(len, column))
        cells.append([cell.rjust(width) for cell in column] if numeric else column)
    lines = aligned([*zip(*cells, strict=True)], left=len(columns))
    counts = Counter(visible(str(run["status"])) for run in runs)
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join([*lines, "", f"{len(runs)} run{'s' * (len(runs) != 1)}" + (f": {total}" if total else "")])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    return visible(written(value))


def _error(value: Any) -> str:
    text = "" if value is None else visible(str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def all_columns(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key that one of the runs has, the columns that a table shows first."""
    found = dict.fromkeys(key for run in runs for key in run)
    return [*(key for key in COLUMNS if key in found), *(key for key in found if key not in COLUMNS)]
