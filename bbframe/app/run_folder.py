"""Where a run writes: a new folder, one that the user names, or the one in which an earlier start of it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bbframe.app.composition import plain_data
from bbframe.app.hydra_settings import RUN_FOLDER, settled
from bbframe.app.leftovers import whole_checkpoint
from bbframe.app.run_request import LAST, RunRequest
from bbframe.app.start_ledger import StartLedger, earlier_start, may_be_repeated, note_start
from bbframe.run.folder_record import read_folder_record
from bbframe.run.masking import mask_overrides, mask_secrets
from bbframe.sweep.jobs import FILES, read_result

# what a start that goes on may have otherwise: where it runs, not what it computes
PLACES = ("output_dir", "ckpt_path", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "data.num_workers")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, the last.ckpt there to go on from, and whether the run has ended well before."""

    folder: Path
    goes_on_from: Path | None = None
    finished: bool = False

    def as_facts(self) -> dict[str, Any]:
        """This as text, for other processes."""
        return {
            "folder": str(self.folder),
            "goes_on_from": self.goes_on_from and str(self.goes_on_from),
            "finished": self.finished,
        }

    @classmethod
    def of(cls, facts: dict[str, Any]) -> RunFolder:
        """What `as_facts` has told."""
        last = facts.get("goes_on_from")
        return cls(Path(facts["folder"]), Path(last) if last else None, bool(facts.get("finished")))


def make_run_folder(request: RunRequest, words: Sequence[str], agents: Sequence[str] = ()) -> RunFolder:
    """Find or make the folder of a run: in the first of its processes.

    A start that repeats an earlier one has its folder, and so has `ckpt_path=last` with `hydra.run.dir`. Else it is
    the default with a number behind it if need be, or `hydra.run.dir`. `words` are the command, and `agents` those of
    torchrun. Raises ValueError when the folder cannot be made or holds the record of another run.
    """
    stated = OmegaConf.to_container(request.config.hydra, resolve=False)["run"]["dir"]  # type: ignore
    folder = Path(settled(request.config, request.data, "hydra.run.dir"))
    if request.goes_on and stated == RUN_FOLDER:
        raise ValueError(
            f"ckpt_path={LAST} goes on in the folder that you name: add hydra.run.dir=<folder>; one file is named by "
            "its path: ckpt_path=<run folder>/checkpoints/last.ckpt"
        )
    with ExitStack() as stack:
        entries: list[dict[str, Any]] = []
        if may_be_repeated():
            entries = stack.enter_context(StartLedger(Path(str(request.data["output_dir"])), words).opened())
        earlier = earlier_start(entries, agents)
        if earlier is not None:
            folder = Path(earlier["folder"])
        elif request.goes_on:
            check_same_run(request, folder)
        elif stated == RUN_FOLDER:
            folder = new_folder(folder)
        else:
            folder = named_folder(folder)
        if request.goes_on or earlier is not None:
            _make(folder)
        note_start(entries, earlier, folder, agents)
    return gone_on(folder) if request.goes_on or earlier is not None else RunFolder(folder)


def gone_on(folder: Path) -> RunFolder:
    """A run that goes on in its folder, or begins anew without a checkpoint there; a finished run is left as it is."""
    if read_result(folder) is not None:
        return RunFolder(folder, finished=True)
    (folder / "error.txt").unlink(missing_ok=True)
    return RunFolder(folder, whole_checkpoint(folder))


def check_same_run(request: RunRequest, folder: Path) -> None:
    """Raise ValueError when a folder holds the record of a run with other options."""
    if not (folder / "config.yaml").is_file():
        return
    _, before = read_folder_record(folder)
    if before == mask_overrides(request.record):
        return
    then = _leaves(mask_secrets(plain_data(request.compose, before)))
    now = _leaves(mask_secrets(request.data))
    other = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    other = [key for key in other if not any(key == place or key.startswith(f"{place}.") for place in PLACES)]
    if other:
        key = other[0]
        raise ValueError(
            f"hydra.run.dir={folder} holds a run with {key}={then.get(key)}, and this one has {key}={now.get(key)}; "
            f"give the same options, another folder, or to change some of a run: ckpt_path={folder}/checkpoints/"
            "last.ckpt"
        )


def _leaves(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, dict) and data:
        return {
            k: v for key, value in data.items() for k, v in _leaves(value, f"{path}.{key}" if path else key).items()
        }
    return {path: data}


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
        goes_on = f", or go on with it: ckpt_path={LAST}" if (folder / "config.yaml").exists() else ""
        raise ValueError(f"hydra.run.dir={folder} holds the record of an earlier run; give another folder{goes_on}")
    return _make(folder)


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"hydra.run.dir={folder}: cannot be made ({error.strerror}); give another folder") from error
    return folder
