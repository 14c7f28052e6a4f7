"""Signals that ask a run to end: raised where they arrive, or, while it trains, noted until a step has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from bbframe.run.processes import in_slurm_shell

if TYPE_CHECKING:
    import lightning.pytorch as pl


def _there(*names: str) -> tuple[int, ...]:
    return tuple(number for name in names if (number := getattr(signal, name, None)) is not None)


BY_HAND = _there("SIGINT", "SIGHUP")  # a person, or a terminal that closes, ends a run for good
SCHEDULED = _there("SIGTERM", "SIGUSR1", "SIGUSR2")  # a scheduler will start it again
STOPPING = (*BY_HAND, *SCHEDULED)
AGAIN = 75  # the exit code by which a run says "start me again": EX_TEMPFAIL of sysexits.h


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run; `number` is the signal's. `together` says that all processes end here."""

    def __init__(self, number: int, together: bool = False) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number, self.together = number, together


class _Raising:
    """The handler of signals that are raised at once; once one of a scheduler's has been, no other is."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT and self.raised:
            return  # the run ends already, and writes what it has to write
        self.raised = True
        raise Interrupted(number)


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Interrupted` for every signal that asks a run to end, so that all of them end it in the same way.

    Where submitit has a handler for the signal, which requeues its job, that is called at the end.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return
    handler = _Raising()
    handler.before = {number: signal.signal(number, handler) for number in STOPPING if _heeded(number)}
    try:
        yield
    except Interrupted as stopped:
        theirs = handler.before.get(stopped.number)
        if "SUBMITIT_EXECUTOR" in os.environ and stopped.number in SCHEDULED and callable(theirs):
            theirs(stopped.number, None)
        raise
    finally:
        for number, before in handler.before.items():
            signal.signal(number, before)


@contextmanager
def signals_kept(trainer: pl.Trainer) -> Iterator[None]:
    """Raise the signal again of which Lightning has made a SystemExit.

    Lightning has then killed the processes that it started. Its observer kills this one too when it sees that, within
    seconds, so it is given none to look after.
    """
    try:
        yield
    except SystemExit as error:
        started = getattr(trainer.strategy.launcher, "procs", None)
        if isinstance(started, list):
            started.clear()
        stopped = error.__context__
        raise stopped if isinstance(stopped, Interrupted) else KeyboardInterrupt from error


def requeue() -> None:
    """Have Slurm start the job again that this process belongs to; says what Slurm refuses.

    Submitit requeues its jobs by itself, and the job of a person's shell is not started again.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or in_slurm_shell() or "SUBMITIT_EXECUTOR" in os.environ:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        said = done.stderr.strip() or done.stdout.strip()
        failed = done.returncode != 0
    except OSError as error:
        said, failed = str(error), True
    if failed:
        print(f"Slurm does not requeue the job {job}: {' '.join(said.split())}", file=sys.stderr)


def _heeded(number: int) -> bool:
    """Whether a signal is not ignored, as SIGHUP is under nohup."""
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


class NotedSignals:
    """Notes the signals that arrive, because a step that is broken off cannot be resumed to the bit.

    `stop` is the one that ends the run: the first, unless submitit's comes behind a SIGTERM. A second SIGINT is raised
    at once.
    """

    stop: int | None = None

    def install(self) -> None:
        """Replace the handlers; Lightning restores those from before its training at its end."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in filter(_heeded, STOPPING):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.stop == signal.SIGINT:
            raise Interrupted(number)
        if self.stop is None or (self.stop == signal.SIGTERM and number in SCHEDULED):
            self.stop = number
