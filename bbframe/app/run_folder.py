"""Where a run writes: a new folder, or one that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bbframe.app.hydra_settings import RUN_FOLDER, settled
from bbframe.run.checkpoint_paths import is_checkpoint
from bbframe.run.processes import is_first
from bbframe.sweep.jobs import FILES


def make_run_folder(config: DictConfig, data: dict[str, Any], first_made: str | None) -> Path:
    """Make the folder of a run: the default with a number behind it if need be, or `hydra.run.dir`.

    Of several processes the first makes the folder and writes; `first_made` tells the others where. Raises ValueError
    when the folder cannot be made or holds the record of an earlier run.
    """
    stated = OmegaConf.to_container(config.hydra, resolve=False)["run"]["dir"]  # type: ignore
    folder = Path(settled(config, data, "hydra.run.dir"))
    if not is_first():
        return folder if stated != RUN_FOLDER else Path(first_made or data["output_dir"])
    return new_folder(folder) if stated == RUN_FOLDER else named_folder(folder)


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
        goes_on = f", or go on from it: ckpt_path={last}" if is_checkpoint(last) else ""
        raise ValueError(f"hydra.run.dir={folder} holds the record of an earlier run; give another folder{goes_on}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"hydra.run.dir={folder}: cannot be made ({error.strerror}); give another folder") from error
    return folder
