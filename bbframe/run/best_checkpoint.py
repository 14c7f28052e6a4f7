"""The checkpoints of the best epochs: the weights that a prediction needs, and no state of an optimizer."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.hub.checkpoint_files import RECORD
from bbframe.run.checkpoint import BEST, load_checkpoint
from bbframe.run.finite_checkpoint import FiniteCheckpoint, take_over

log = logging.getLogger("bbframe")
WEIGHTS = ("state_dict", "epoch", "global_step", "pytorch-lightning_version", RECORD)  # what a best checkpoint holds


class BestEpoch(NamedTuple):
    """An epoch, counted from 1, and its value of the monitored metric."""

    value: float
    epoch: int


class BestCheckpoint(FiniteCheckpoint):
    """best.ckpt and, where `keep` is 2 or more, epoch_3.ckpt and so on for the epochs that come next.

    An epoch must be better than an earlier one to come before it; one whose value is not finite is never kept. A
    resumed run takes over the files of the run that it continues.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, keep: int = 1) -> None:
        super().__init__(
            folder, "best", monitor, mode=mode, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.folder, self.sign, self.keep = folder, 1 if mode == "min" else -1, keep
        self.kept: list[BestEpoch] = []  # the best first
        self._validated = self._writing = False

    @property
    def best(self) -> BestEpoch | None:
        """The best epoch so far, None without one."""
        return self.kept[0] if self.kept else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.state.fn == TrainerFn.FITTING
        if self._validated and not trainer.is_last_batch:  # within an epoch
            self._save_if_best(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this epoch was validated and is among the best. Raises ValueError when a weight is not finite."""
        self._save_if_best(trainer, pl_module)

    def _save_if_best(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_finite(trainer, pl_module)
        monitor = str(self.monitor)
        fresh, self._validated = self._validated or not monitor.startswith("val/"), False
        value = float(trainer.callback_metrics.get(monitor, math.nan))
        if not (fresh and math.isfinite(value)):
            return
        new = BestEpoch(value, trainer.current_epoch + 1)
        kept = sorted([*self.kept, new], key=lambda epoch: (self.sign * epoch.value, epoch.epoch))[: self.keep]
        if new not in kept:
            return
        if kept[0] == new and len(kept) == 1:
            self._write(trainer, self._path(0, new))
        else:
            self._write(trainer, self._path(1, new))
            if trainer.is_global_zero:
                self._rename(kept, new)
        self._set(kept)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave in a checkpoint of a best epoch what it holds, and say which epoch it is."""
        if self._writing:
            kept = {key: checkpoint[key] for key in WEIGHTS if key in checkpoint}
            value = float(trainer.callback_metrics[str(self.monitor)])
            checkpoint.clear()
            checkpoint.update(kept)
            checkpoint[BEST] = {"metric": self.monitor, "value": value, "epoch": trainer.current_epoch + 1}

    def state_dict(self) -> dict[str, Any]:
        """The best epochs alone: where their files lie is known, also after the folder has moved."""
        return {"kept": [list(epoch) for epoch in self.kept]} if self.kept else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: `on_load_checkpoint` knows what the checkpoint is loaded for."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Copy the earlier checkpoints of the best epochs that the resumed checkpoint knows.

        Raises ValueError when a file is damaged.
        """
        known = checkpoint["callbacks"].get(self.state_key, {}).get("kept", [])
        if trainer.ckpt_path is None or trainer.state.fn != TrainerFn.FITTING:
            return
        resumed = Path(trainer.ckpt_path)
        # what Slurm's signal leaves lies in the run folder, the others lie in its checkpoints/
        places = [resumed.parent, resumed.with_name("checkpoints")]
        found = {_epoch_in(file): file for place in places for file in _files(place)}
        trainer.strategy.barrier()  # every process has read them
        wanted = [BestEpoch(*epoch) for epoch in known[: self.keep]]
        kept = [epoch for epoch in wanted if epoch in found]
        for epoch in set(wanted) - set(kept):
            what = f"epoch {epoch.epoch}, {self.monitor}={epoch.value:g}, beside it: the best is sought anew"
            log.info("best      %s has no checkpoint of %s", resumed, what)
        for rank, epoch in enumerate(kept):
            take_over(found[epoch], self._path(rank, epoch), trainer)
        if trainer.is_global_zero:
            for file in set(_files(self.folder)) - {self._path(rank, epoch) for rank, epoch in enumerate(kept)}:
                file.unlink()  # in the run's own folder: of an epoch after the checkpoint
        self._set(kept)

    def _path(self, rank: int, epoch: BestEpoch) -> Path:
        return self.folder / ("best.ckpt" if rank == 0 else f"epoch_{epoch.epoch}.ckpt")

    def _write(self, trainer: Trainer, path: Path) -> None:
        self._writing = True
        try:
            self._save_checkpoint(trainer, str(path))
        finally:
            self._writing = False

    def _rename(self, kept: list[BestEpoch], new: BestEpoch) -> None:
        """Give each file the name of its rank; the new one is called by its epoch, whatever its rank."""
        if kept[0] == new:
            os.replace(self._path(0, self.kept[0]), self._path(1, self.kept[0]))
            os.replace(self._path(1, new), self._path(0, new))
        for dropped in set(self.kept) - set(kept):
            self._path(1, dropped).unlink(missing_ok=True)

    def _set(self, kept: list[BestEpoch]) -> None:
        """Keep these epochs, and tell Lightning's loggers of them."""
        self.kept = kept
        if kept:
            self.best_model_path = str(self._path(0, kept[0]))
            self.best_model_score = self.current_score = torch.tensor(kept[0].value)
            self.best_k_models = {str(self._path(i, e)): torch.tensor(e.value) for i, e in enumerate(kept)}


def _files(folder: Path) -> list[Path]:
    """The checkpoints of best epochs in a folder."""
    return [*folder.glob("best.ckpt"), *folder.glob("epoch_*.ckpt")]


def _epoch_in(file: Path) -> BestEpoch | None:
    """The epoch that a file is of, None for a file of another kind. Raises ValueError when it is damaged."""
    best = load_checkpoint(file).content.get(BEST)
    return BestEpoch(best["value"], best["epoch"]) if isinstance(best, dict) else None
