"""A lock on each job's folder: no two processes run one job, and a killed process leaves it free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore

LOCK = ".lock"
_held: set[Path] = set()  # by this process, which would lose a lock by opening and closing its file again


@contextmanager
def job_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a job while the block runs; gives False when another process holds it.

    The lock is POSIX's, which belongs to one process: a worker forked from it does not keep it after its end. Network
    file systems have it too. Where there is none, every process may run the job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError:  # a file system without locks
            yield True
            return
        _held.add(folder)
        try:
            yield True
        finally:
            _held.discard(folder)


@contextmanager
def waiting_lock(file: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made, while the block runs; waits for other processes."""
    with file.open("ab") as opened:
        with suppress(OSError):  # a file system without locks
            if fcntl is not None:
                fcntl.lockf(opened, fcntl.LOCK_EX)
        yield


def is_running(folder: Path) -> bool:
    """Whether a process, this one included, runs the job in a folder."""
    if folder in _held or not (folder / LOCK).is_file():
        return folder in _held
    with job_lock(folder) as free:
        return not free
