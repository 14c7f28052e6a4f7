"""The journal of a search, which Optuna writes: a lock that no killed process keeps, and its last line mended."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from bbframe.sweep.job_lock import waiting_lock

JOURNAL = "search.journal"


class JournalLock:
    """Optuna's lock of its journal, held by the kernel for one process: who is killed leaves it free at once."""

    def __init__(self, file: Path) -> None:
        self.file, self._held = file, ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held.enter_context(waiting_lock(self.file))
        return True

    def release(self) -> None:
        """Leave the lock to others."""
        self._held.close()


def mend_journal(journal: Path, lock: JournalLock) -> None:
    """Cut off a last line that a killed process has begun, and not ended."""
    if not journal.is_file():
        return
    lock.acquire()
    try:
        content = journal.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)
    finally:
        lock.release()
