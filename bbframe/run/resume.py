"""What a resumed training takes from its configuration, and not from the checkpoint: the options that it has now."""

from __future__ import annotations

import dataclasses
import logging
import math
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from bbframe.run.checkpoint import SavedRun
from bbframe.run.lightning_checkpoints import parameter_names
from bbframe.run.sharded_strategy import ShardedStrategy, resharded
from bbframe.tasks import OptimOptions

log = logging.getLogger("bbframe")


class ResumedOptimizer(Callback):
    """Resumes the state of every parameter by its name, under the options that the configuration gives now.

    torch restores learning rates, weight decay, betas and momentum with the state, and refuses other groups of
    parameters, such as a new `layer_decay` makes. Another optimizer than the checkpoint's starts without state.
    """

    def __init__(self, options: OptimOptions) -> None:
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.saved: SavedRun | None = None
        self.rate = 0.0  # the largest that the checkpoint's run would have gone on with
        self.trained = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave the scheduler its own rates and factors: the checkpoint says which step is next."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.saved = SavedRun.of(checkpoint, str(trainer.ckpt_path))
        for state in checkpoint["lr_schedulers"]:
            self.rate = max(state["_last_lr"])
            state["lr_lambdas"] = []
            del state["base_lrs"], state["_last_lr"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adapt the checkpoint's state, which is loaded next, to the optimizer as it was made."""
        for optimizer in trainer.optimizers if self.saved else []:
            names = parameter_names(optimizer, pl_module)
            optimizer.register_load_state_dict_pre_hook(partial(self._adapted, names))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set each learning rate to the next step's, and say which options have changed."""
        self.trained = True
        if self.saved is None:
            return
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            groups = scheduler.optimizer.param_groups
            scheduler.last_epoch = self._position(trainer, scheduler.last_epoch)
            for group, rate, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
                group["lr"] = rate * factor(scheduler.last_epoch)
            scheduler._last_lr = [group["lr"] for group in groups]  # which may be saved before the next step
        if changes := self._changes(self.saved):
            log.info("optimizer %s from here on", ", ".join(changes))
        now = max(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups)
        if not math.isclose(now, self.rate, rel_tol=1e-9):
            then, ends = self.saved.config["trainer"], ("max_epochs", "max_steps")
            spans = [f"{end}={getattr(trainer, end)} (was {then.get(end)})" for end in ends]
            why = f"the schedule now spans trainer.{', '.join(spans)}"
            log.info("schedule  the learning rate goes on at %.3g and not at %.3g: %s", now, self.rate, why)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved is not None and not self.trained:
            done = f"{trainer.ckpt_path} has done {trainer.current_epoch} epochs, {trainer.global_step} steps"
            log.info("training  nothing is left to train: %s; trainer.max_epochs may be raised", done)

    def _position(self, trainer: Trainer, step: int) -> int:
        """Where the schedule goes on: after as many epochs as are done, also if they had other numbers of steps."""
        epoch: Any = trainer.fit_loop.epoch_progress.current
        if trainer.max_steps != -1 or epoch.ready != epoch.processed:
            return step
        return trainer.current_epoch * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def _adapted(self, names: list[str], optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        assert self.saved is not None
        by_name: dict[str, Any] = {}
        if self.saved.config["optim"]["name"] == self.options["name"]:
            by_name = {name: state["state"].get(i) for i, name in enumerate(self.saved.parameter_names)}
        states = {i: by_name[name] for i, name in enumerate(names) if by_name.get(name) is not None}
        return {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}

    def _changes(self, saved: SavedRun) -> list[str]:
        now, then = self.options, saved.config["optim"]
        if then["name"] != now["name"]:
            return [f"{now['name']} without the state of {then['name']}"]
        now = {key: list(value) if isinstance(value, tuple) else value for key, value in now.items()}
        return [f"{key}={value} (was {then[key]})" for key, value in now.items() if then.get(key, value) != value]


class AveragedWeights(EMAWeightAveraging):
    """Lightning's, which leaves the average in the network when a validation is broken off."""

    swapped = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with resharded(trainer):
            super().on_validation_epoch_start(trainer, pl_module)
        self.swapped = self._average_model is not None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with resharded(trainer):
            super().on_validation_epoch_end(trainer, pl_module)
        self.swapped = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.swapped:
            if isinstance(trainer.strategy, ShardedStrategy):
                trainer.strategy.reshard()
            self._swap_models(pl_module)
        self.swapped = False


class ResumedEarlyStopping(EarlyStopping):
    """Lightning's, which looks at validated epochs only, and keeps a stop and the configuration's patience."""

    def __init__(self, monitor: str, *, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """End a run that had ended here."""
        waited = checkpoint["callbacks"].get(self.state_key, {}).get("wait_count", 0)
        if trainer.state.fn == TrainerFn.FITTING and waited >= self.patience:
            trainer.should_stop = True
            log.info("training  no epoch of the last %d was better; trainer.early_stopping may be raised", waited)
