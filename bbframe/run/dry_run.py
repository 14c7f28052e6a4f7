"""A dry run: everything is built, batches are trained and validated, and then it says what the run would take."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl

from bbframe.data.data_module import DataModule
from bbframe.report.profile import count_parameters, gmacs, peak_memory_bytes, reset_peak_memory
from bbframe.report.tables import labelled, number
from bbframe.run.checkpoint import EPOCHS
from bbframe.run.configuration import Configuration
from bbframe.run.learning_rate_finder import STEPS
from bbframe.run.lightning_checkpoints import RunInCheckpoint
from bbframe.run.masking import mask_overrides, mask_secrets, remember
from bbframe.run.results import log_network
from bbframe.run.run_log import logging_to
from bbframe.run.stop_signals import signals_kept, signals_raised
from bbframe.run.training_run import TrainingRun
from bbframe.run.trial_training import trial_trainer
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")

ANY_RATE = 1e-3  # in the place of optim.lr=auto: its search takes longer than all the rest
WARM_UP = 1  # batches that are not timed, because the first one allocates
MOST_FILES = 1000  # image files whose sizes are read; the others are estimated from them


class BatchSeconds(pl.Callback):
    """Times the batches of training and of validation, with the time to load them: `train` and `val` in seconds."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []
        self._since = 0.0

    def _lap(self, times: list[float]) -> None:
        times.append(time.perf_counter() - self._since)
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._lap(self.train)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._lap(self.val)


def dry_run(
    plan: Configuration, config: dict[str, Any], overrides: list[str], secrets: Set[str] = frozenset()
) -> dict[str, Any]:
    """What a run with this plan would take, as plain data for `dry_run_table`; it leaves no folder behind.

    Raises the errors that the run would raise before and in its first batches, ValueErrors in one line.
    """
    remember(secrets)
    sought = plan.run.train and plan.optim.lr == "auto"
    if sought:
        plan = replace(plan, optim=replace(plan.optim, lr=ANY_RATE))
    with TemporaryDirectory(prefix="bbframe_dry_run_") as place, signals_raised():
        folder = Path(place)
        with logging_to(folder / "train.log"):
            run = TrainingRun(plan, mask_secrets(config), mask_overrides(overrides), folder)
            return {**_measured(run), "lr_sought": sought}


def _measured(run: TrainingRun) -> dict[str, Any]:
    reset_peak_memory()
    saved = run.opened_checkpoint()
    pl.seed_everything(run.plan.run.seed, workers=True, verbose=False)
    task, data = run.network_and_data(run.recorded_backbone(saved))
    if saved is not None:
        saved.check_fits(task)
    found = run.settle_automatic(task, data, saved)
    plan, backbone = run.plan, task.backbone
    macs = gmacs(task, (backbone.config.num_channels, *data.image_size))
    log_network(plan, task, data, macs)
    times = BatchSeconds()
    callbacks = [times, RunInCheckpoint(run.saved_run(task, data), run.stopwatch)]
    batches = 1 + WARM_UP
    trainer = trial_trainer(
        plan,
        run.folder,
        callbacks,
        max_epochs=1,
        limit_train_batches=batches * plan.trainer.accumulate_grad_batches,
        limit_val_batches=batches,
    )
    try:
        with signals_kept(trainer):
            if plan.run.train:
                trainer.fit(task, datamodule=data)
            else:
                trainer.validate(task, datamodule=data, verbose=False)
        checkpoint = _checkpoint_bytes(trainer, run.folder) if plan.run.train else 0
    finally:
        data.teardown("exception")
    weights = backbone.load_report
    return {
        "name": plan.run.name,
        "backbone": plan.backbone_name,
        "weights": plan.run.ckpt_path if weights is None else str(weights),
        "params": count_parameters(task),
        "trained_params": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "gmacs": round(macs, 6),
        "image_size": list(data.image_size),
        "batch_size": data.batch_size,
        "found": found,
        "images": dict(data.counts),
        "peak_memory_bytes": peak_memory_bytes(),
        **_time(plan, data, times, 0 if saved is None else len(saved.content.get(EPOCHS, {}).get("rows", []))),
        **_disk(plan, task, data, checkpoint),
    }


def _checkpoint_bytes(trainer: pl.Trainer, folder: Path) -> int:
    """The size of a checkpoint from which a run goes on."""
    file = folder / "trial.ckpt"
    trainer.save_checkpoint(file)
    return file.stat().st_size


def _batches(whole: int, limit: int | float | None) -> int:
    """How many of an epoch's batches are taken under `trainer.limit_..._batches`."""
    if limit is None:
        return whole
    return min(whole, limit) if isinstance(limit, int) else int(whole * limit)


def _time(plan: Configuration, data: DataModule, times: BatchSeconds, done: int = 0) -> dict[str, Any]:
    """Batches and seconds of an epoch and of the epochs that are not `done`; None where nothing is trained."""
    if not plan.run.train:
        return {"epochs": 0, "train_batches": 0, "seconds_epoch": None, "seconds": None}
    options = plan.trainer
    whole = max(1, data.counts["train"] // min(data.batch_size, data.counts["train"]))
    train = _batches(whole, options.limit_train_batches)
    val = _batches(math.ceil(data.counts["val"] / data.batch_size), options.limit_val_batches)
    steps = math.ceil(train / options.accumulate_grad_batches)
    epochs = math.inf if options.max_epochs == -1 else options.max_epochs
    if options.max_steps != -1:
        epochs = min(epochs, options.max_steps / steps)
    epochs = max(0, epochs - done)
    a_train, a_val = min(times.train), min(times.val, default=0.0)
    epoch = train * a_train + val * a_val / options.check_val_every_n_epoch
    return {
        "epochs": epochs,
        "train_batches": train,
        "val_batches": val,
        "seconds_train_batch": round(a_train, 4),
        "seconds_val_batch": round(a_val, 4),
        "seconds_epoch": round(epoch, 2),
        "seconds": round(epoch * epochs, 1),
    }


def _disk(plan: Configuration, task: Task, data: DataModule, checkpoint: int) -> dict[str, Any]:
    """Bytes that the run writes, that its images take, and that are free where it writes."""
    weights = sum(value.numel() * value.element_size() for value in task.state_dict().values())
    backbone = sum(value.numel() * value.element_size() for value in task.backbone.state_dict().values())
    home = Path(plan.run.output_dir).expanduser().absolute()
    home = next(place for place in (home, *home.parents) if place.exists())
    if plan.trainer.ema_decay is not None:
        checkpoint += weights if checkpoint else 0  # the average beside the weights
    kept = checkpoint + plan.trainer.keep * weights if plan.trainer.keep else 0
    return {
        "checkpoint_bytes": checkpoint,
        "weights_bytes": weights,
        "written_bytes": kept + backbone if plan.run.train else 0,
        "data_bytes": _data_bytes(data),
        "free_bytes": shutil.disk_usage(home).free,
    }


def _data_bytes(data: DataModule) -> int:
    """The size of the image files of all parts; 0 for images that are no files."""
    total = 0.0
    for part, count in data.counts.items():
        step = max(1, count // MOST_FILES)
        files = [Path(data.source(part, index)) for index in range(0, count, step)]
        sizes = [file.stat().st_size for file in files if file.is_file()]
        total += sum(sizes) / max(1, len(files)) * count
    return int(total)


def dry_run_table(facts: Mapping[str, Any]) -> str:
    """A dry run as a table for people, a line each."""
    lines: dict[str, Any] = {
        "backbone": facts["backbone"],
        "weights": facts["weights"] or "fresh",
        "parameters": f"{facts['params'] / 1e6:.2f} M, {facts['trained_params'] / 1e6:.2f} M of them trained",
        "GMACs": f"{number(facts['gmacs'], '.3g')} an image of {'x'.join(map(str, facts['image_size']))}",
        "memory": f"{size_text(facts['peak_memory_bytes'])} at most, in batches of {facts['batch_size']}",
    }
    if facts["seconds"] is not None:
        count = f"{facts['train_batches']} batches of {facts['seconds_train_batch'] * 1000:.0f} ms"
        validated = f"{facts['val_batches']} of {facts['seconds_val_batch'] * 1000:.0f} ms validated"
        lines["time an epoch"] = f"about {time_text(facts['seconds_epoch'])}: {count}, {validated}"
        search = f", and the search for optim.lr, {STEPS} steps at most" if facts["lr_sought"] else ""
        lines["time in all"] = f"about {time_text(facts['seconds'])} for {facts['epochs']:g} epochs{search}"
        lines["disk"] = (
            f"{size_text(facts['written_bytes'])}: last.ckpt {size_text(facts['checkpoint_bytes'])}, "
            f"weights {size_text(facts['weights_bytes'])}; {size_text(facts['free_bytes'])} are free"
        )
    images = ", ".join(f"{count} {part}" for part, count in facts["images"].items())
    files = f", {size_text(facts['data_bytes'])} of files" if facts["data_bytes"] else ""
    lines["data"] = f"{images}{files}"
    return "\n".join(labelled(lines))


def size_text(size: float) -> str:
    """Bytes as people read them: 12.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def time_text(seconds: float) -> str:
    """A span of time as people read it: 45 s, 12 min, 3.2 h, 2.5 days."""
    if not math.isfinite(seconds):
        return "no end"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < length * most:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"
