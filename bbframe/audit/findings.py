"""What an audit found, image by image, and what to do about it: the rows of a file of fixes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bbframe.audit.duplicates import NearPair
from bbframe.data.fixes_file import COLUMNS, PARTS, Fix
from bbframe.files import write_text

PROBLEMS = (
    "unreadable",
    "leak",
    "exact copy",
    "two classes",
    "near leak",
    "near copy",
    "wrong label",
    "outlier",
    "small object",
)


@dataclass(frozen=True)
class Finding:
    """A problem of an image. `score` in [0, 1] is 1 for the surest; `other` is its twin, by part and name.

    `number` and `twin` are the places of both among all images of the data set; `detail` is for people.
    """

    part: str
    image: str
    problem: str
    score: float
    action: str = "check"
    label: str = ""
    suggestion: str = ""
    other: str = ""
    detail: str = ""
    number: int = -1
    twin: int | None = None

    def plain(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {**asdict(self), "score": round(self.score, 6)}


@dataclass(frozen=True)
class AuditedImages:
    """Who the images are that findings number: part, name and label of each; in detection labels are empty."""

    parts: Sequence[str]
    names: Sequence[str]
    labels: Sequence[str]

    def finding(self, number: int, problem: str, score: float, *, twin: int | None = None, **more: str) -> Finding:
        """A finding about an image, and about its twin if there is one."""
        told: dict[str, Any] = {}
        if twin is not None:
            told = {"other": f"{self.parts[twin]}: {self.names[twin]}", "twin": twin}
        facts: dict[str, Any] = {"label": self.labels[number], "number": number, **told, **more}
        return Finding(self.parts[number], self.names[number], problem, float(min(1.0, max(0.0, score))), **facts)

    def least_protected_first(self, numbers: Iterable[int]) -> list[int]:
        """Images in the order in which they may be given up: those of train first, of test last, the later first."""
        return sorted(numbers, key=lambda number: (PARTS.index(self.parts[number]), -number))


def copy_findings(images: AuditedImages, groups: Sequence[Sequence[int]]) -> tuple[list[Finding], dict[int, int]]:
    """What equal images come to, and which image stands for each that is given up: {number: the one that stays}.

    One image of a group stays: of the test images, else of the validation images, else of those for training, the
    first. A copy in another part than the one that stays is a leak. Where equal images have different classes, the
    one that stays must be looked at.
    """
    found: list[Finding] = []
    kept: dict[int, int] = {}
    for group in groups:
        *others, stays = images.least_protected_first(group)
        for number in sorted(others):
            apart = images.parts[number] != images.parts[stays]
            found.append(images.finding(number, "leak" if apart else "exact copy", 1.0, twin=stays, action="exclude"))
            kept[number] = stays
        classes = sorted({images.labels[number] for number in group} - {images.labels[stays]})
        if classes:
            unlike = next(number for number in sorted(others) if images.labels[number] == classes[0])
            found.append(images.finding(stays, "two classes", 1.0, twin=unlike, suggestion=classes[0]))
    return found, kept


def near_findings(images: AuditedImages, pairs: Iterable[NearPair], detail: str) -> list[Finding]:
    """Pairs that look nearly the same; the image of train is named first, and nothing is excluded unseen."""
    found = []
    for one, other, score in pairs:
        first, twin = images.least_protected_first((one, other))
        problem = "near copy" if images.parts[first] == images.parts[twin] else "near leak"
        found.append(images.finding(first, problem, score, twin=twin, detail=detail))
    return found


def spare_the_last(findings: Sequence[Finding], parts: Sequence[str], labels: Sequence[str]) -> list[Finding]:
    """The findings, where none is to be excluded that would leave a part, or a class of train, without images.

    `parts` and `labels` are those of all images, by their numbers. What must stay is to be checked.
    """
    left = Counter((parts[number], labels[number]) for number in range(len(parts)))
    whole = Counter(parts)
    spared = []
    for finding in findings:
        key = (parts[finding.number], labels[finding.number])
        if finding.action == "exclude" and (whole[key[0]] <= 1 or (key[0] == "train" and left[key] <= 1)):
            why = "the last image of its class or part, so that it stays until you decide"
            finding = replace(finding, action="check", detail="; ".join(filter(None, [finding.detail, why])))
        elif finding.action == "exclude":
            left[key] -= 1
            whole[key[0]] -= 1
        spared.append(finding)
    return spared


def write_fixes(path: Path, findings: Iterable[Finding], before: Iterable[Fix] = ()) -> None:
    """Write the findings as a CSV file that `data.exclude` takes, whole or absent.

    `before` are the rows of the file that the data have been read with, which stay.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # a name may hold a line's end
    writer.writerow(COLUMNS)
    for fix in before:
        known = {"part": fix.part, "image": fix.image, "problem": "listed before", "action": fix.action}
        writer.writerow([{**known, "suggestion": fix.suggestion}.get(column, "") for column in COLUMNS])
    cells: list[Callable[[Finding], str]] = [_cell(column) for column in COLUMNS]
    writer.writerows([cell(finding) for cell in cells] for finding in findings)
    write_text(path, text.getvalue())


def _cell(column: str) -> Callable[[Finding], str]:
    if column == "score":
        return lambda finding: f"{finding.score:.4f}"
    return lambda finding: str(getattr(finding, column))
