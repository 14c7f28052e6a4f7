"""How far a ranking has come: a bar with the time left in a terminal, a line a backbone elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class FeaturesShown:
    """What is shown while networks look at images: one bar over all of them."""

    def __init__(self, backbones: int, images: int, progress: Progress | None) -> None:
        self.backbones, self.images, self.progress = backbones, images, progress
        self.number = 0
        self.task: TaskID | None = None
        if progress is not None:
            self.task = progress.add_task("", total=backbones * images)

    @contextmanager
    def backbone(self, name: str) -> Iterator[None]:
        """Show a backbone while the block looks at the images through it."""
        self.number += 1
        self.seen, began = 0, time.perf_counter()
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, description=f"{name} ({self.number} of {self.backbones})")
        try:
            yield
            seconds = time.perf_counter() - began
            self.say(f"[{self.number}/{self.backbones}] {name}  {self.images} images  {seconds:.1f} s")
        finally:
            self.advance(self.images - self.seen)

    def advance(self, count: int) -> None:
        """Count images that are done."""
        self.seen += count
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task, count)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.progress is not None:
            self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)


@contextmanager
def features_shown(backbones: int, images: int) -> Iterator[FeaturesShown]:
    """Show the progress of features: over `backbones` networks, `images` each."""
    if not sys.stdout.isatty():
        yield FeaturesShown(backbones, images, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=rich.get_console(), transient=True) as progress:
        yield FeaturesShown(backbones, images, progress)


@contextmanager
def scores_shown(stages: int) -> Iterator[Callable[[], None]]:
    """Show the progress of scores over `stages`; gives the function that counts one."""
    if not sys.stdout.isatty():
        print(f"scoring {stages} stages", flush=True)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=rich.get_console(), transient=True) as progress:
        task = progress.add_task("scores of stages", total=stages)
        yield lambda: progress.advance(task)
