"""How Lightning writes and reads checkpoints: best.ckpt and last.ckpt, with the record of the run in both."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.files import atomic
from bbframe.run.checkpoint import SavedRun, load_checkpoint

log = logging.getLogger("bbframe")


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints: a save replaces the old file in one step, a load runs no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a temporary file in the same folder, then rename it, so that a kill never costs a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """A copy of the content, in memory on the CPU, whatever the arguments say. ValueError as `load_checkpoint`."""
        return copy.deepcopy(load_checkpoint(Path(path)).content)


def checkpoint_callbacks(folder: Path, monitor: str | None, mode: str) -> list[Callback]:
    """Callbacks that keep <folder>/checkpoints/last.ckpt and, with a `monitor`, best.ckpt by its "max" or "min"."""
    last = LastCheckpoint(folder / "checkpoints")
    # the best comes first, so that last.ckpt knows the best value up to its own epoch
    return [last] if monitor is None else [BestCheckpoint(folder / "checkpoints", monitor, mode), last]


class RunInCheckpoint(Callback):
    """Puts the record of the run into every checkpoint."""

    def __init__(self, saved_run: SavedRun) -> None:
        self.saved_run = saved_run

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.saved_run.put(checkpoint, [n for o in trainer.optimizers for n in parameter_names(o, pl_module)])


def parameter_names(optimizer: torch.optim.Optimizer, module: LightningModule) -> list[str]:
    """The names of an optimizer's parameters in its own order, which numbers their states."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names.get(id(parameter), "") for group in optimizer.param_groups for parameter in group["params"]]


class FiniteCheckpoint(ModelCheckpoint):
    """A checkpoint after an epoch that stops the run rather than save weights that are NaN or infinite."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save. Raises ValueError when a weight is not finite."""
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

    def state_dict(self) -> dict[str, Any]:
        """The best value alone: where the file lies is known, also after the folder has moved."""
        return {} if self.best_model_score is None else {"best": float(self.best_model_score)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: `on_load_checkpoint` knows what the checkpoint is loaded for."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Copy the earlier best.ckpt if it holds the best value that the resumed checkpoint knows.

        Raises ValueError when the file is damaged.
        """
        value = self._best_value(checkpoint)
        if value is None or trainer.ckpt_path is None or trainer.state.fn != TrainerFn.FITTING:
            return
        resumed, target = Path(trainer.ckpt_path), Path(self.format_checkpoint_name({}))
        # what Slurm's signal leaves lies in the run folder, the others lie in its checkpoints/
        places = (resumed.with_name("best.ckpt"), resumed.with_name("checkpoints") / "best.ckpt")
        source = next((place for place in places if place.is_file()), None)
        if source is None or self._best_value(load_checkpoint(source).content) != value:
            what = f"{self.monitor}={value:g} beside it: the best is sought anew"
            log.info("best      %s has no best.ckpt of %s", resumed, what)
            return
        if source.resolve() != target and trainer.is_global_zero:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as part:
                shutil.copyfile(source, part)
        self.best_model_path = self.kth_best_model_path = str(target)
        self.best_model_score = self.kth_value = self.current_score = torch.tensor(value)
        self.best_k_models = {str(target): self.best_model_score}

    def _best_value(self, checkpoint: dict[str, Any]) -> float | None:
        """The best value that a checkpoint knows."""
        return checkpoint["callbacks"].get(self.state_key, {}).get("best")


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
