"""Signals that ask a run to end: raised where they arrive, or, while it trains, noted until a step has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Interrupted` for every signal that asks a run to end, so that all of them end it in the same way."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return
    before = {number: signal.signal(number, _raise) for number in STOPPING if _heeded(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Raise the signal again of which Lightning has made a SystemExit."""
    try:
        yield
    except SystemExit as error:
        stopped = error.__context__
        raise stopped if isinstance(stopped, Interrupted) else KeyboardInterrupt from error


def _heeded(number: int) -> bool:
    """Whether a signal is not ignored, as SIGHUP is under nohup."""
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


class NotedSignals:
    """Notes the signals that arrive, because a step that is broken off cannot be resumed to the bit.

    `stop` is the first that asks the run to end; a second SIGINT is raised at once. `requeue` is Slurm's signal before
    the time limit, which Lightning answers with a checkpoint and a new job.
    """

    stop: int | None = None
    requeue = False

    def install(self) -> None:
        """Replace the handlers; Lightning restores those from before its training at its end."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in filter(_heeded, STOPPING):
            signal.signal(number, self._note)
        self._requeue: Callable[..., Any] | int | None = None
        if hasattr(signal, "SIGUSR1") and callable(handler := signal.getsignal(signal.SIGUSR1)):
            self._requeue = handler
            signal.signal(signal.SIGUSR1, self._note_requeue)

    def answer_requeue(self) -> None:
        """Do what Slurm's signal asks for."""
        self.requeue = False
        if callable(self._requeue):
            self._requeue(signal.SIGUSR1, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.stop == signal.SIGINT:
            raise Interrupted(number)
        self.stop = self.stop or number

    def _note_requeue(self, number: int, frame: FrameType | None) -> None:
        self.requeue = True
