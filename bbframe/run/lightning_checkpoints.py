"""How Lightning writes and reads checkpoints: last.ckpt and those of the best epochs, all with the run's record."""

from __future__ import annotations

import copy
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.files import atomic
from bbframe.run.best_checkpoint import BestCheckpoint
from bbframe.run.checkpoint import SECONDS, SavedRun, load_checkpoint
from bbframe.run.checkpoint_paths import take_the_place
from bbframe.run.epoch_state import EpochState
from bbframe.run.finite_checkpoint import FiniteCheckpoint, not_finite, take_over
from bbframe.run.stop_signals import Interrupted, NotedSignals
from bbframe.run.stopwatch import Stopwatch


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints: a save replaces the old file in one step, a load runs no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a temporary file in the same folder, then rename it, so that a kill never costs a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}_file") if path.is_dir() else path
        with atomic(new) as part, part.open("wb") as file:  # torch's own file hides why it cannot be written
            torch.save(checkpoint, file)
        if new != path:
            take_the_place(new, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """A copy of the content, in memory on the CPU, whatever the arguments say. ValueError as `load_checkpoint`."""
        return copy.deepcopy(load_checkpoint(Path(path)).content)


def checkpoint_callbacks(
    folder: Path, monitor: str | None, mode: str, every: int | timedelta | None = None, keep: int = 1
) -> list[Callback]:
    """Callbacks that keep <folder>/checkpoints/last.ckpt and, with a `monitor`, best.ckpt by its "max" or "min".

    Within an epoch last.ckpt is written every `every` steps, or after that time. The `keep` best epochs are kept.
    """
    state = EpochState()
    last = LastCheckpoint(folder / "checkpoints", state, every)
    # the best comes first, so that last.ckpt knows the best value up to its own epoch
    best = [] if monitor is None else [BestCheckpoint(folder / "checkpoints", monitor, mode, keep)]
    return [state, *best, last]


class RunInCheckpoint(Callback):
    """Puts the record of the run, and the seconds that it has taken, into every checkpoint."""

    def __init__(self, saved_run: SavedRun, stopwatch: Stopwatch) -> None:
        self.saved_run, self.stopwatch = saved_run, stopwatch

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[SECONDS] = self.stopwatch.seconds()
        self.saved_run.put(checkpoint, [n for o in trainer.optimizers for n in parameter_names(o, pl_module)])


def parameter_names(optimizer: torch.optim.Optimizer, module: LightningModule) -> list[str]:
    """The names of an optimizer's parameters in its own order, which numbers their states."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names.get(id(parameter), "") for group in optimizer.param_groups for parameter in group["params"]]


class LastCheckpoint(FiniteCheckpoint):
    """last.ckpt: after every epoch, every so often within one, and on the way out of an interrupted or failed run.

    It is written only where a run can be resumed to the bit: between two optimizer steps, before a validation, and
    after an epoch. There a signal ends the run.
    """

    def __init__(self, folder: Path, state: EpochState, every: int | timedelta | None = None) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.state, self.every = state, every
        self.signals = NotedSignals()
        self._saved = (0, 0.0)  # the step and the time
        self._common = math.inf  # batches of a validation that every process has

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the file's name says it all."""
        return {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint that is resumed: this folder can then be resumed too, whatever comes next."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.ckpt_path is not None:
            take_over(Path(trainer.ckpt_path), Path(self.format_checkpoint_name({})), trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        between, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
        if between and between != math.inf and between < trainer.num_training_batches and between % batches:
            raise ValueError(
                f"trainer: a validation every {between} batches would break off optimizer steps of {batches} batches; "
                f"give trainer.val_check_interval={max(1, int(between // batches)) * batches}"
            )
        self.signals.install()
        self._saved = (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time or a signal has come, unless a validation or the end of the epoch saves next."""
        within = (batch_idx + 1) % trainer.accumulate_grad_batches
        validated = trainer.val_check_batch is not None and (batch_idx + 1) % trainer.val_check_batch == 0
        validated = validated and (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if not (within or validated or trainer.is_last_batch or trainer.global_step == trainer.max_steps):
            self._save_if_due(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._save_if_due(trainer, pl_module)
            batches = sum(trainer.num_val_batches) if trainer.world_size > 1 else math.inf
            self._common = _reduced(trainer, batches, "min")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """End at a signal; several processes do so together, at a batch that all of them have."""
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._common and (stop := self._asked(trainer)):
            raise Interrupted(stop, together=True)  # `on_exception` saves

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: `on_train_epoch_end` comes next."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_global_step_saved = -1  # a checkpoint before the validation does not stand in for this one
        super().on_train_epoch_end(trainer, pl_module)
        self._saved = (trainer.global_step, time.monotonic())
        if stop := self._asked(trainer):
            raise Interrupted(stop)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what was learnt up to the last whole step, unless it is not finite.

        One of several processes does not, unless all end here: it would wait for the others.
        """
        fitting = trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0
        fitting = fitting and (trainer.world_size == 1 or getattr(exception, "together", False))
        whole = not isinstance(exception, KeyboardInterrupt) or self.state.validating
        if fitting and whole and self.state.rewind(trainer) and not_finite(trainer, pl_module) is None:
            self._save(trainer)

    def _save_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop = self._asked(trainer)
        step, moment = self._saved
        due = isinstance(self.every, int) and trainer.global_step - step >= self.every
        if isinstance(self.every, timedelta):
            due = trainer.strategy.broadcast(time.monotonic() - moment >= self.every.total_seconds())
        if stop or due:
            self.check_finite(trainer, pl_module)
            self._save(trainer)
        if stop:
            raise Interrupted(stop)

    def _save(self, trainer: Trainer) -> None:
        self._save_checkpoint(trainer, self.format_checkpoint_name({}))
        self._saved = (trainer.global_step, time.monotonic())

    def _asked(self, trainer: Trainer) -> int:
        """The signal that ends the run, 0 for none: the same in all processes."""
        return int(_reduced(trainer, self.signals.stop or 0, "max"))


def _reduced(trainer: Trainer, value: float, by: str) -> float:
    """The "min" or "max" of a value over all processes."""
    if trainer.world_size == 1:
        return value
    own = torch.tensor(float(value), device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(own, reduce_op=by))
