"""The file of fixes that `bbframe data --out` writes and `data.exclude` reads: a row for each image and problem."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbframe.files import visible
from bbframe.schema import nearest

COLUMNS = ("part", "image", "problem", "score", "action", "label", "suggestion", "other")
ACTIONS = ("exclude", "relabel", "check", "keep")
PARTS = ("train", "val", "test")
MOST_FIX_BYTES = 2**28  # of a file


@dataclass(frozen=True)
class Fix:
    """What a row asks for; `part` is empty where only the image is named, `suggestion` is the class of a relabel."""

    image: str
    action: str
    part: str = ""
    suggestion: str = ""


def read_fixes(path: str) -> tuple[list[Fix], str]:
    """The rows of a file and its SHA-256: CSV with the columns of `COLUMNS`, or the name of an image a line.

    Of a CSV file the columns image and action must be there. A semicolon or a tab may part the cells, titles may have
    capital letters, and columns of one's own are ignored, because spreadsheets write such files. Raises ValueError in
    one line that names the row and what is wrong with it.
    """
    where = f"data: exclude={visible(path)}"
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_FIX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text (UTF-8)") from error
    if len(raw) > MOST_FIX_BYTES:
        raise ValueError(f"{where} has more than {MOST_FIX_BYTES} bytes; name fewer images")
    if Path(path).suffix.lower() == ".csv" or set(map(str.lower, _cells(text))) >= {"image", "action"}:
        fixes = _rows(where, text)
    else:
        fixes = [Fix(line.strip(), "exclude") for line in text.splitlines() if line.strip()]
    return fixes, hashlib.sha256(raw).hexdigest()


def _delimiter(text: str) -> str:
    """What parts the cells: a comma, or what a spreadsheet writes in its place."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _cells(text: str) -> list[str]:
    """The cells of the first line."""
    return [cell.strip().strip('"') for cell in text.partition("\n")[0].split(_delimiter(text))]


def _rows(where: str, text: str) -> list[Fix]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), restval="")
    try:
        titles = [title.strip().lower() for title in reader.fieldnames or ()]
        for title in titles:
            if title not in COLUMNS and nearest(title, COLUMNS) != nearest("", COLUMNS):
                raise ValueError(f"{where} has the column {visible(title)!r}{nearest(title, COLUMNS)}")
        for title in ("image", "action"):
            if titles.count(title) != 1:
                what = "lacks the column" if title not in titles else "has twice the column"
                raise ValueError(f"{where} {what} {title!r}; it needs image and action")
        reader.fieldnames = titles
        return [
            fix for number, row in enumerate(reader, 2) if (fix := _fix(f"{where}, row {number}", row)) is not None
        ]
    except csv.Error as error:
        raise ValueError(f"{where} is no CSV: {error}") from error


def _fix(where: str, row: Mapping[str | None, Any]) -> Fix | None:
    """A row; None for an empty one."""
    if any(cell.strip() for cell in row.get(None) or ()):
        raise ValueError(f"{where}: has another number of cells than the first row; quote cells that hold a comma")
    if not any(cell for cell in row.values() if isinstance(cell, str)):
        return None
    image, action, part = row["image"], row["action"].strip().lower(), row.get("part", "").strip().lower()
    if not image:
        raise ValueError(f"{where}: names no image")
    if action not in ACTIONS:
        raise ValueError(f"{where}: action={visible(action)!r} must be {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}")
    if part and part not in PARTS:
        raise ValueError(f"{where}: part={visible(part)!r} must be {', '.join(PARTS[:-1])} or {PARTS[-1]}, or empty")
    suggestion = row.get("suggestion", "")
    if action == "relabel" and not suggestion:
        raise ValueError(f"{where}: relabel needs the new class in the column suggestion")
    return Fix(image, action, part, suggestion)
