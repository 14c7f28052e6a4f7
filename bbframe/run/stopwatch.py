"""How long the steps of a run take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """The wall time of steps, in seconds. A resumed run adds its own to what the earlier run took."""

    def __init__(self) -> None:
        self._ended: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def go_on_from(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds that an earlier run had taken up to its checkpoint."""
        for step, earlier in seconds.items():
            self._ended[step] = self._ended.get(step, 0.0) + earlier

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Time a step; a step that is done twice takes the sum."""
        self._ended.setdefault(step, 0.0)
        self._started[step] = time.perf_counter()
        yield
        self._ended[step] += time.perf_counter() - self._started.pop(step)

    def seconds(self) -> dict[str, float]:
        """The seconds of each step so far, also of one that goes on, in the order in which they began."""
        now = time.perf_counter()
        running = {step: now - started for step, started in self._started.items()}
        return {step: round(ended + running.get(step, 0.0), 2) for step, ended in self._ended.items()}
