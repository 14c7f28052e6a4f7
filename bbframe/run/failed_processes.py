"""One of several processes fails: it tells the others through the run folder, and all end, with the error said once.

A process that waits for the others' gradients cannot hear of their failure from them. Where the connection breaks, as
with gloo, it learns that they have ended, and here why; where it does not, a thread ends it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from bbframe.files import write_text
from bbframe.run.agreement import ToldByFirst
from bbframe.run.processes import rank

GRACE = 10.0  # seconds after the failure of another process in which this one may end by itself
PATIENCE = 3.0  # seconds in which a process that has lost the others may find out why
PAUSE = 1.0
LOST = ("gloo", "nccl", "tcpstore", "connection closed by peer", "connection reset by peer", "broken pipe")


@contextmanager
def failures_watched(folder: Path, processes: int, failed: Callable[[str], None]) -> Iterator[None]:
    """End this process when another one of several has failed and this one hangs; the first then calls `failed`."""
    if processes == 1:
        yield
        return
    _remove(folder)  # those of an earlier start
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PAUSE):
            if (found := _failure(folder)) is not None and not ended.wait(GRACE):
                if rank() == 0:
                    with suppress(OSError):
                        failed(found)
                    print(f"error: {found.splitlines()[0]}", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _remove(folder)


def _plain(error: BaseException) -> str:
    """What a library says, without the places in its source."""
    return " ".join(re.sub(r"\[\S+:\d+\]", "", str(error)).split())[:200]


def _remove(folder: Path) -> None:
    """Let the first process remove what the others have said: error.txt says it too."""
    for file in folder.glob("error.process_*.txt") if rank() == 0 else ():
        file.unlink(missing_ok=True)


def told_once(error: BaseException, folder: Path, processes: int) -> BaseException:
    """The error that this process raises: the first one says what has failed, also in another; the others say nothing.

    A failure of another process, and a stop by a signal, is no failure of this one.
    """
    lost = isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST)
    )
    if processes == 1 or isinstance(error, ToldByFirst):
        return error
    if rank() == 0:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        found = _failure_soon(folder) if lost or stopped else None
        if found is not None:
            with suppress(ValueError):  # in another thread than the main one
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which ends all when one has failed
            print(f"error: {found.splitlines()[0]}", file=sys.stderr, flush=True)
            return ToldByFirst(found)
        ended = "another process of the run has ended without a word; was it killed, or its machine out of memory?"
        return ValueError(f"{ended} ({_plain(error)})") if lost else error
    if isinstance(error, Exception) and not lost:
        with suppress(OSError):
            details = getattr(error, "details", "")
            text = f"{str(error) or type(error).__name__}\n{details}".rstrip()
            write_text(folder / f"error.process_{rank()}.txt", text)
    return ToldByFirst(str(error)) if isinstance(error, ValueError) or lost else error


def _failure_soon(folder: Path) -> str | None:
    until = time.monotonic() + PATIENCE
    while (found := _failure(folder)) is None and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _failure(folder: Path) -> str | None:
    """What another process has failed of, after its number."""
    for file in sorted(folder.glob("error.process_*.txt")):
        number = file.stem.rpartition("_")[2]
        if number != str(rank()):
            with suppress(OSError):
                return f"process {number}: {file.read_text(encoding='utf-8').strip()}"
    return None
