"""metrics.csv: one row a validation, and at least one an epoch, with training and validation values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bbframe.report.tables import write_csv

Row = dict[str, Any]


class EpochTable(Logger):
    """A logger of Lightning's that writes <folder>/metrics.csv while a run trains.

    A validation within an epoch, which `trainer.val_check_interval` asks for, has a row of its own; the values of the
    training over the epoch stand in the last of its rows. The columns are `epoch`, `step` (the optimizer steps done
    when the row was last written to) and every value that is logged, by its name. A value that is logged several times
    for a row, such as a learning rate, is there as it was last. `rows` are those of metrics.csv; `waiting` are values
    that came without an epoch, and belong to the next.
    The table is closed once the training has ended: what a test logs is of no epoch, and stands in metrics.json.
    """

    def __init__(self, folder: Path, open: bool = True) -> None:
        super().__init__()
        self.path, self.open = folder / "metrics.csv", open
        self.rows: list[Row] = []
        self.waiting: Row = {}

    @property
    def name(self) -> str:
        return "epochs"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of their "epoch", which Lightning counts from 0; a new row or cell is written."""
        if not self.open:
            return
        if "epoch" not in metrics:
            self.waiting.update(metrics)
            return
        before = [*map(len, self.rows)]
        self.rows = self.with_values(int(metrics["epoch"]), step or 0, metrics)
        self.waiting = {}
        if [*map(len, self.rows)] != before:
            self.write()

    def with_values(self, epoch: int, step: int, values: Mapping[str, float]) -> list[Row]:
        """The rows once `values`, and those that wait, are added; `epoch` and `step` are Lightning's, from 0."""
        counted = {"epoch": epoch + 1, "step": step + 1}
        *earlier, last = self.rows or [counted]
        validated_again = any(name.startswith("val/") and name in last for name in values) and last["step"] != step + 1
        if last["epoch"] != epoch + 1 or validated_again:
            earlier, last = [*earlier, last], counted
        return [*earlier, {**last, **self.waiting, **values, **counted}]

    @rank_zero_only
    def go_on_from(self, rows: Sequence[Row], waiting: Mapping[str, float]) -> None:
        """Begin with what an earlier run had logged up to its checkpoint."""
        self.rows, self.waiting = [dict(row) for row in rows], dict(waiting)
        self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file, whole, when there is a row."""
        if self.rows:
            names = sorted({name for row in self.rows for name in row} - {"epoch", "step"})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            columns = ["epoch", "step", *names]
            write_csv(self.path, [columns, *([row.get(column) for column in columns] for row in self.rows)])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the values that changed last, and close the table."""
        if self.open:
            self.write()
        self.open = False
