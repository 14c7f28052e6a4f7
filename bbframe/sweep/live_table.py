"""The progress of a sweep while it runs: a table that changes in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import rich
from rich.live import Live
from rich.table import Table

from bbframe.run.masking import outward
from bbframe.sweep.progress import Progress, span

EVERY = 2.0  # seconds between two looks at the jobs' folders


def progress_table(progress: Progress) -> Table:
    """The progress as a table of two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_row("done", f"{progress.done} of {progress.total}")
    if progress.failed:
        table.add_row("failed", str(progress.failed))
    if progress.left_out:
        table.add_row("left out", str(progress.left_out))
    for label, epochs in progress.running:
        table.add_row("running", outward(f"{label}  ({epochs} epochs done)"))
    if progress.best:
        label, metric, value = progress.best
        table.add_row("best so far", outward(f"{metric} {value:.4f}  {label}"))
    if progress.seconds_left:
        table.add_row("time left", f"about {span(progress.seconds_left)}")
    return table


@contextmanager
def progress_shown(observe: Callable[[], Progress], elsewhere: bool) -> Iterator[None]:
    """Show what `observe` returns while the block runs: as a table in a terminal.

    Otherwise a line is printed whenever a job has ended, if the jobs run `elsewhere`: in other processes, whose output
    may not come here. A job in this process prints its own lines.
    """
    terminal = sys.stdout.isatty()
    if not (terminal or elsewhere):
        yield
        return
    stop = threading.Event()
    live = Live(console=rich.get_console(), auto_refresh=False, transient=True) if terminal else None

    def watch() -> None:
        before, last = None, False
        while not last:
            last = stop.wait(EVERY if before else 0)  # a last look comes after the block
            progress = observe()
            ended = (progress.done, progress.failed, progress.left_out)
            if live is not None:
                live.update(progress_table(progress), refresh=True)
            elif before is not None and ended != before:
                print(outward(progress.line()), flush=True)
            before = ended

    thread = threading.Thread(target=watch, name="progress of the sweep", daemon=True)
    with live or nullcontext():
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
