"""What the folder of a run says, in the form of this version or of an earlier one."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bbframe.files import read_yaml

Curves = dict[str, list[tuple[int, float]]]  # {"val/loss": [(epoch from 1, value), ...]}


class ScoredImage(NamedTuple):
    """A row of predictions.csv; the classes are positions in the list of classes."""

    name: str
    label: int
    predicted: int
    probability: float
    true_probability: float
    loss: float


@dataclass(frozen=True)
class FinishedRun:
    """The files of a run folder; those that are not there are empty."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    error: str = ""  # why it failed

    @property
    def metric(self) -> str:
        """The name of the monitored metric, such as "accuracy"."""
        return str(self.metrics.get("metric", "")).removeprefix("val/")

    @property
    def mode(self) -> str:
        """Whether the largest ("max") or the smallest ("min") value of the metric is the best."""
        return str(self.metrics.get("mode") or ("min" if self.metric.endswith(("loss", "error")) else "max"))

    @property
    def tested(self) -> dict[str, float]:
        """The test metrics by their names, such as "accuracy"."""
        found = self.metrics.get("test") or {}
        return {str(name).removeprefix("test/"): value for name, value in found.items()}

    @property
    def best(self) -> tuple[int, float] | None:
        """The best epoch, from 1, and its value of the metric."""
        old = self.metrics.get("best")
        if isinstance(old, dict):
            return int(old["epoch"]), float(old["value"])
        value, epoch = (self.metrics.get("val") or {}).get(self.metric), self.metrics.get("best_epoch")
        return None if value is None or epoch is None else (int(epoch), float(value))

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of a test metric over images."""
        low, high = ((self.metrics.get(f"test_{end}") or {}).get(metric) for end in ("low", "high"))
        return None if low is None or high is None else (low, high)


def read_run(folder: Path) -> FinishedRun:
    """Read a run's folder. Raises ValueError in one line for a file that is broken, or when it is no run's."""
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: not a run folder, it holds no config.yaml")
    overrides, failure = folder / "overrides.yaml", folder / "error.txt"
    metrics = _read_json(folder / "metrics.json")
    failed = not metrics and failure.is_file()
    return FinishedRun(
        folder,
        config=read_yaml(folder / "config.yaml", dict),
        overrides=[str(line) for line in read_yaml(overrides, list)] if overrides.is_file() else [],
        environment=_read_json(folder / "environment.json"),
        metrics=metrics,
        curves=_read_curves(folder / "metrics.csv"),
        error=failure.read_text(encoding="utf-8", errors="replace").strip() if failed else "",
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold a mapping, not {type(found).__name__}")
    return found


def _read_curves(path: Path) -> Curves:
    """The last value of each column in each epoch; earlier versions counted epochs from 0, in several rows each."""
    cells: dict[str, dict[int, list[float]]] = {}
    for row in read_table(path):
        epoch = _number(path, row.get("epoch") or "nan")
        for column, cell in row.items():
            if cell and math.isfinite(epoch) and "/" in str(column):
                cells.setdefault(column, {}).setdefault(int(epoch), []).append(_number(path, str(cell)))
    first = min((epoch for rows in cells.values() for epoch in rows), default=1)
    return {
        column: [(epoch + (first == 0), values[-1]) for epoch, values in sorted(rows.items())]
        for column, rows in cells.items()
    }


def read_predictions(path: Path, class_names: list[str]) -> list[ScoredImage]:
    """The rows of a classification's predictions.csv; `class_names` as they stand there.

    Without its column, the true class's probability follows from the loss. Raises ValueError for a class that is none
    of the names.
    """
    places = {name: place for place, name in enumerate(class_names)}
    rows = []
    for row in read_table(path):
        if lost := [name for name in ("image", "class", "predicted", "probability", "loss") if row.get(name) is None]:
            raise ValueError(f"{path}: a row has no {lost[0]!r}")
        unknown = [name for name in (row["class"], row["predicted"]) if name not in places]
        if unknown:
            raise ValueError(f"{path}: {unknown[0]!r} is none of the classes of the run")
        loss = _number(path, row["loss"])
        given = row.get("true_probability")
        rows.append(
            ScoredImage(
                row["image"],
                places[row["class"]],
                places[row["predicted"]],
                _number(path, row["probability"]),
                math.exp(-loss) if given is None else _number(path, given),
                loss,
            )
        )
    return rows


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; none without the file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(path: Path, cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(f"{path}: {cell!r} is not a number") from error
