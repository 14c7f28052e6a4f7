"""The console command: `bbframe train ...` does what `python train.py ...` does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run a sub-command; exits with its code."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print("usage: bbframe train [group=choice] [key=value] ...\n\n`bbframe train --help` shows all of it.")
        return
    if command != "train":
        meant = sys.argv[1:] if "=" in command or command.startswith("-") else rest
        sys.exit(f"error: no command {command!r}; did you mean 'bbframe {' '.join(['train', *meant])}'?")
    # in the wheel the entry point lies in the package, in a checkout beside it
    entry = next(path for path in (HERE / "train.py", HERE.parent / "train.py") if path.is_file())
    sys.argv = [str(entry), *rest]
    runpy.run_path(str(entry), run_name="__main__")
