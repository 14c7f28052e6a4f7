"""Failures of the machine under a run, such as a full disk, in one line that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, of a quota, in a file


def in_one_line(error: BaseException, folder: Path) -> BaseException:
    """A failure of the machine, such as a full disk, as a ValueError that says where and what to do."""
    last = folder / "checkpoints" / "last.ckpt"
    goes_on = f"; then this goes on: ckpt_path={last}" if last.exists() else ""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    full = next((e for e in causes if isinstance(e, OSError) and e.errno in FULL), None)
    if full is not None and isinstance(error, Exception) and not isinstance(error, ValueError):
        where = full.filename or getattr(full, "path", None) or folder
        return ValueError(f"{where}: {full.strerror}; make room, or give another output_dir{goes_on}")
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        reason = " ".join(str(error).split())
        return ValueError(f"data: {reason} Less memory is used with data.num_workers=0{goes_on}")
    return error
