"""What an earlier start of a run has left in its folder: a checkpoint to go on from, or parts to remove."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bbframe.run.masking import outward

# what an earlier start that left no checkpoint may have written
LEFTOVERS = (
    "checkpoints",
    "pictures",
    "backbone",
    "metrics.csv",
    "predictions.csv",
    "predictions.json",
    "report.html",
)


def whole_checkpoint(folder: Path) -> Path | None:
    """The last.ckpt of an earlier start of a run; without a whole one the leftovers of that start are removed."""
    last = folder / "checkpoints" / "last.ckpt"
    before = last.with_name("last_before.ckpt")  # a start with another strategy was killed between two renames
    if before.exists() and not last.exists():
        before.rename(last)
    if last.exists():
        from bbframe.run.checkpoint import load_checkpoint

        try:
            load_checkpoint(last)
            return last
        except ValueError as error:
            print(outward(f"{error}; the run starts anew"), file=sys.stderr)
    for name in LEFTOVERS:
        place = folder / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    return None
