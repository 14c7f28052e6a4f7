"""Tables as text, for the terminal and in Markdown, and as CSV files."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bbframe.files import write_text


def number(value: float | None, form: str) -> str:
    """Format a number; None becomes a dash."""
    return "-" if value is None else format(value, form)


def padded(table: Sequence[Sequence[str]], left: int = 3) -> list[list[str]]:
    """Pad cells to the width of their column; the first `left` columns are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [[f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(line)] for line in table]


def aligned(table: Sequence[Sequence[str]], left: int = 3) -> list[str]:
    """The lines of a table for a terminal, with a rule below its header."""
    lines = ["  ".join(line).rstrip() for line in padded(table, left)]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands, without HTML, columns or emphasis of its own."""
    return re.sub(r"([|*_`\\])", r"\\\1", html.escape(text, quote=False))


def markdown(table: Sequence[Sequence[str]], left: int = 3) -> list[str]:
    """The lines of a table in Markdown."""
    safe = padded([[markdown_text(cell) for cell in line] for line in table], left)
    rule = ["-" * len(cell) if i < left else "-" * (len(cell) - 1) + ":" for i, cell in enumerate(safe[0])]
    return [f"| {' | '.join(line)} |" for line in (safe[0], rule, *safe[1:])]


def labelled(values: Mapping[str, object]) -> list[str]:
    """The lines of a table of names and values."""
    width = max(map(len, values))
    return [f"{name.ljust(width)}  {value}" for name, value in values.items()]


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the header first, as a CSV file that is whole or absent; None leaves a cell empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
