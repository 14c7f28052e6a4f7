"""Checkpoints that survive a kill, are never half read, and keep the names best.ckpt and last.ckpt."""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from bbframe.files import atomic


def check_checkpoint(path: Path) -> None:
    """Compare every byte of a checkpoint with its checksums.

    Raises ValueError that names the file, says what is wrong with it, and names a whole checkpoint beside it if any.
    """
    problem = _damage(path)
    if problem is not None:
        others = sorted(path.parent.glob("*.ckpt"), key=lambda other: -other.stat().st_mtime)
        whole = next((other for other in others if other.name != path.name and _damage(other) is None), None)
        raise ValueError(f"checkpoint {path} {problem}" + (f"; {whole} is whole: try that one" if whole else ""))


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None when every byte of it agrees with its checksums."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        return "is a URL; download it and give the local path"
    if not path.is_file():
        return "is not a file" if path.exists() else "does not exist"
    if path.stat().st_size == 0:
        return "is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except Exception:  # zipfile raises a dozen different errors over bytes that make no sense
        return "is truncated, or not a checkpoint"
    return f"is damaged (the checksum of {damaged} differs)" if damaged else None


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a whole checkpoint: tensors and plain containers. ValueError names the file and its fault."""
    check_checkpoint(path)
    try:
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint {path} holds more than tensors and plain containers: {reason}") from error
    return loaded


def fit_checkpoint(path: Path, saved: dict[str, Any], task: Any) -> None:
    """Refuse, by ValueError, a checkpoint of other classes or of another network than `task`; nothing is loaded."""
    then, now = saved["bbframe"]["config"]["task"]["name"], task.options.name
    if then != now:
        raise ValueError(
            f"checkpoint {path} is of task={then}, this is task={now}; to start from its backbone give "
            "backbone.pretrained=true backbone.checkpoint=<its run folder>/backbone"
        )
    classes = saved["bbframe"]["class_names"]
    if classes != task.class_names:
        raise ValueError(
            f"checkpoint {path} tells {len(classes)} classes apart ({', '.join(classes[:3])}, ...), the data has "
            f"{len(task.class_names)} ({', '.join(task.class_names[:3])}, ...); give the data that it was trained on"
        )
    theirs, ours = (
        {k: tuple(v.shape) for k, v in state.items()} for state in (saved["state_dict"], task.state_dict())
    )
    wrong = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if wrong:
        raise ValueError(
            f"checkpoint {path} is of another network: {len(wrong)} tensors differ, the first is {wrong[0]} "
            f"({theirs.get(wrong[0], 'missing')} there, {ours.get(wrong[0], 'missing')} here); leave out the "
            "overrides that change the network"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's door to checkpoint files: a save replaces the old file in one step, a load runs no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write to a temporary file in the same folder, then give it the name, so that a kill never costs a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read tensors and plain containers, whatever `weights_only` says; raises ValueError that names the file."""
        return load_checkpoint(Path(path), map_location)


def checkpoint_callbacks(folder: Path, monitor: str | None, mode: str) -> list[Callback]:
    """Callbacks that keep <folder>/checkpoints/best.ckpt and last.ckpt.

    best: the epoch with the best value of `monitor` ("val/accuracy", mode "max" or "min"), only if `monitor` is given.
    last: after every epoch, and when training is interrupted or fails.
    """
    last = LastCheckpoint(folder / "checkpoints")
    # The best comes first, so that last.ckpt knows the best value up to its own epoch.
    return [last] if monitor is None else [BestCheckpoint(folder / "checkpoints", monitor, mode), last]


class FiniteCheckpoint(ModelCheckpoint):
    """A checkpoint after an epoch that stops the run rather than save weights that are NaN or infinite."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; raises ValueError when a weight is not finite."""
        bad = next((name for name, p in pl_module.named_parameters() if not p.isfinite().all()), None)
        if bad is not None:
            raise ValueError(
                f"epoch {trainer.current_epoch}: the weights {bad!r} are no longer finite, so no checkpoint was"
                f" written over those in {self.dirpath}; lower the learning rate, or clip the gradients"
            )
        super().on_train_epoch_end(trainer, pl_module)


class BestCheckpoint(FiniteCheckpoint):
    """best.ckpt. A resumed run takes over the best file and value of the run that it continues."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(folder, "best", monitor, mode=mode, enable_version_counter=False)
        self.earlier: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best value alone: where the file lies is known, also after the folder has moved."""
        return {} if self.best_model_score is None else {"best": float(self.best_model_score)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the value until training starts: a test of a checkpoint copies no file."""
        self.earlier = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the earlier best file, which lies beside the checkpoint that training resumes from."""
        super().on_train_start(trainer, pl_module)
        if self.earlier is None or trainer.ckpt_path is None:
            return
        source, target = Path(trainer.ckpt_path).with_name("best.ckpt"), Path(self.format_checkpoint_name({}))
        if not source.is_file():
            return
        if source.resolve() != target and trainer.is_global_zero:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as part:
                shutil.copyfile(source, part)
        self.best_model_path = self.kth_best_model_path = str(target)
        self.best_model_score = self.kth_value = self.current_score = torch.tensor(self.earlier)
        self.best_k_models = {str(target): self.best_model_score}


class LastCheckpoint(FiniteCheckpoint):
    """last.ckpt, after every epoch and on the way out of an interrupted or failed run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "last", save_on_exception=True, save_on_train_epoch_end=True, enable_version_counter=False
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the file's name says it all."""
        return {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what was learnt, unless it is not finite."""
        if all(p.isfinite().all() for p in pl_module.parameters()):
            super().on_exception(trainer, pl_module, exception)
