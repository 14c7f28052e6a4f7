"""What a checkpoint holds beyond Lightning's, so that a run goes on to the bit from the middle of an epoch.

Lightning resumes exactly from three moments: between two optimizer steps, before a validation, and after an epoch. A
checkpoint is of one of these. What breaks off a step is taken back to the end of the step before.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.run.checkpoint import EPOCHS
from bbframe.run.epoch_table import EpochTable
from bbframe.run.global_batch import recount_batches

REDUCTIONS: dict[str, Any] = {"mean": torch.mean, "sum": torch.sum, "max": torch.max, "min": torch.min}


class EpochState(Callback):
    """Keeps the running means of an epoch and the rows of metrics.csv in checkpoints, and takes back broken steps."""

    def __init__(self) -> None:
        self.validating = self.ended = self.stepping = False
        self._window: dict[str, Any] | None = None  # what was so before the first batch of this optimizer step
        self._loaded: dict[str, Any] | None = None
        self._waiting: list[dict[str, Any]] = []  # means of other processes, until this run has logged its own
        self._logging: str | None = None  # the hook of the module that logs the means

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded:
            shares, world = self._loaded["means"], trainer.world_size
            if len(shares) == world:
                self._set_means(trainer, shares[trainer.global_rank])
            else:
                self._waiting = _dealt(shares, world)
            self._loaded = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._logging is not None:  # a validation may have come before this first batch of a resumed epoch
            trainer._logger_connector._current_fx, self._logging = self._logging, None
        if batch_idx % trainer.accumulate_grad_batches == 0:
            buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}  # BatchNorm's change
            self._window = {"batches": batch_idx, "buffers": buffers, "means": self._waiting or self._means(trainer)}
            self.stepping = False
        self.ended = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for mean in self._waiting:
            metric: Any = trainer.fit_loop.epoch_loop._results[f"{mean['fx']}.{mean['name']}"]
            value = mean["value"].to(metric.value.device)
            if mean["reduce_fx"] in ("mean", "sum"):
                metric.value = metric.value + value
            else:
                metric.value = REDUCTIONS[mean["reduce_fx"]](torch.stack([metric.value, value]))
            if mean["size"] is not None:
                metric.cumulated_batch_size = metric.cumulated_batch_size + mean["size"].to(value.device)
        self._waiting = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._waiting:  # nothing more of this epoch is trained
            self._set_means(trainer, self._waiting)
            self._waiting = []
        self.validating = trainer.state.fn == TrainerFn.FITTING

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validating, self.ended = False, bool(trainer.is_last_batch)  # else the epoch goes on

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = True

    def rewind(self, trainer: Trainer) -> bool:
        """Take back what an exception has broken off; False when no earlier moment of this epoch can be restored."""
        if self.ended or self._window is None:
            return False
        if self.validating:
            return True  # it is done again
        window = self._window
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        now, handed_out = progress.current, progress.current.ready
        if now.ready == now.completed and self.stepping:
            return not progress.is_last_batch  # after which a resumed run would not validate
        # the checkpoint of the epoch before is as good; behind a validation Lightning would not know that it is done
        if self.stepping or window["batches"] == 0 or window["batches"] % trainer.val_check_batch == 0:
            return False
        with torch.no_grad():
            for name, buffer in trainer.lightning_module.named_buffers():
                buffer.copy_(window["buffers"][name])
        self._set_means(trainer, window["means"])
        back = now.completed - window["batches"]
        part: Any
        for part in (progress.total, now):
            part.completed -= back
            part.ready = part.started = part.processed = part.completed
        progress.is_last_batch = False
        if (data := getattr(trainer, "datamodule", None)) is not None and hasattr(data, "take_back"):
            data.take_back(handed_out - window["batches"])
        return True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add this state; of a checkpoint before or during validation, say that the validation is still to be done."""
        means, table = self._means(trainer), _table(trainer)
        rows, waiting = (table.rows, table.waiting) if table else ([], {})
        if self.ended:  # Lightning logs the means of the epoch after its checkpoint
            logged = trainer.fit_loop.epoch_loop._results.metrics(on_step=False)["log"] if means else {}
            values = {name: value.item() for name, value in logged.items()}
            if table and (values or waiting):
                step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
                rows, waiting = table.with_values(trainer.current_epoch, step, values), {}
            means = []
        shares: list[Any] = [means]
        if trainer.world_size > 1:
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, means)
        checkpoint[EPOCHS] = {"means": shares, "rows": rows, "waiting": waiting}
        if self.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["current"] = dict.fromkeys(progress["current"], 0)
            progress["total"].update(ready=1, started=1, processed=0, completed=0)
            progress["is_last_batch"] = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Begin metrics.csv with the rows that the earlier run had written up to this checkpoint."""
        if trainer.state.fn != TrainerFn.FITTING or EPOCHS not in checkpoint:
            return
        self._loaded = state = checkpoint[EPOCHS]
        if (data := getattr(trainer, "datamodule", None)) is not None:
            recount_batches(checkpoint, data)
        if (table := _table(trainer)) is not None:
            table.go_on_from(state["rows"], state["waiting"])

    def _means(self, trainer: Trainer) -> list[dict[str, Any]]:
        """The running means of this epoch; a device is not waited for."""
        found = []
        names = {function: name for name, function in REDUCTIONS.items()}
        for metric in trainer.fit_loop.epoch_loop._results.values():
            meta = metric.meta
            if metric.is_tensor and meta.on_epoch and not metric.has_reset and meta.reduce_fx in names:
                kept = {key: getattr(meta, key) for key in ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch")}
                kept |= {"reduce_fx": names[meta.reduce_fx], "sync_dist": meta.sync.should}
                found.append({**kept, "value": metric.value, "size": getattr(metric, "cumulated_batch_size", None)})
        return found

    def _set_means(self, trainer: Trainer, means: list[dict[str, Any]]) -> None:
        results, device = trainer.fit_loop.epoch_loop._results, trainer.strategy.root_device
        results.reset(metrics=False)
        for mean in means:
            settings = {key: value for key, value in mean.items() if key not in ("fx", "name", "value", "size")}
            settings |= {"reduce_fx": REDUCTIONS[mean["reduce_fx"]], "sync_dist_fn": trainer.strategy.reduce}
            value = mean["value"].to(device)
            results.log(mean["fx"], mean["name"], value, batch_size=1, **settings)
            metric = results[f"{mean['fx']}.{mean['name']}"]
            metric.value = value
            if mean["size"] is not None:
                metric.cumulated_batch_size = torch.as_tensor(mean["size"]).to(device)
            trainer._logger_connector._current_fx = mean["fx"]  # else the first batch would begin them anew
            self._logging = mean["fx"]


def _dealt(shares: list[list[dict[str, Any]]], world: int) -> list[dict[str, Any]]:
    """Each of `world` processes' share of the running means of other processes: all have the same.

    Whether Lightning reduces them it knows once they are logged here: one process says nothing of it.
    """
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for mean in (mean for share in shares for mean in share):
        merged.setdefault((mean["fx"], mean["name"]), []).append(mean)
    dealt = []
    for same in merged.values():
        kind, values = same[0]["reduce_fx"], torch.stack([torch.as_tensor(mean["value"]) for mean in same])
        value = values.sum(0) / world if kind in ("mean", "sum") else REDUCTIONS[kind](values)
        sizes = [torch.as_tensor(mean["size"], dtype=torch.float) for mean in same if mean["size"] is not None]
        size = torch.stack(sizes).sum() / world if sizes else None
        dealt.append({**same[0], "sync_dist": False, "value": value, "size": size})
    return dealt


def _table(trainer: Trainer) -> EpochTable | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, EpochTable)), None)
