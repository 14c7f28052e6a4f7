"""Where a run writes: a new folder, or one that the user names."""

from __future__ import annotations

from pathlib import Path

from bbframe.sweep.jobs import FILES


def new_folder(first: Path) -> Path:
    """Make a folder that nobody else has made: `first`, or the same name with _2, _3, ...

    Raises ValueError when it cannot be made.
    """
    folder, number = first, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if not folder.is_dir():
                raise ValueError(
                    f"output_dir={first.parent.parent}: cannot make the run folder {folder} ({error.strerror});"
                    " give a folder that you may write to: output_dir=..."
                ) from error
            number += 1
            folder = first.with_name(f"{first.name}_{number}")


def named_folder(folder: Path) -> Path:
    """Make the folder that the user named. Raises ValueError when it holds the record of an earlier run."""
    if any((folder / name).exists() for name in FILES):
        last = folder / "checkpoints" / "last.ckpt"
        goes_on = f", or go on from it: ckpt_path={last}" if last.is_file() else ""
        raise ValueError(f"hydra.run.dir={folder} holds the record of an earlier run; give another folder{goes_on}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"hydra.run.dir={folder}: cannot be made ({error.strerror}); give another folder") from error
    return folder
