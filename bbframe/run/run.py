"""One run: a checked configuration becomes a trained network and a folder that says everything about it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import rich
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import CSVLogger

from bbframe.data import make_data
from bbframe.factory import make_backbone
from bbframe.files import write_text
from bbframe.heads.levels import WITH_MASKS
from bbframe.report.leaderboard import run_table
from bbframe.report.profile import count_parameters, gmacs, peak_memory_bytes, reset_peak_memory
from bbframe.run.build import make_task, saved_backbone
from bbframe.run.callbacks import EpochLines, SeedEveryBatch
from bbframe.run.checkpoint import (
    AtomicCheckpointIO,
    checkpoint_callbacks,
    fit_checkpoint,
    load_checkpoint,
)
from bbframe.run.configuration import Plan, check
from bbframe.run.lightning_parts import make_plugins
from bbframe.run.masking import mask_overrides, mask_secrets
from bbframe.run.record import environment, write_failure, write_record
from bbframe.run.results import describe, show
from bbframe.tasks.base import Task

log = logging.getLogger("bbframe")
# what Lightning says about things that are as they should be
NOISE = (
    "Experiment logs directory",  # the run folder, which holds the record already
    ".*does not have many workers",  # the data module chooses their number
    ".*LeafSpec",  # Lightning's own use of torch
    "Found .* module.* in eval mode",  # frozen ones are
    "The number of training batches .* is smaller than the logging interval",
)


def run(config: dict[str, Any], overrides: list[str], folder: Path, secrets: Set[str] = frozenset()) -> dict[str, Any]:
    """Do what a configuration says, in an existing folder; returns what `metrics.json` then holds.

    `secrets` are values that no record may show. Raises ValueError for whatever the user can mend; any failure leaves
    its text in `error.txt`.
    """
    with _logging_to(folder / "train.log"), warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        try:
            plan = check(config)
            record = {
                "config": mask_secrets(config, set(secrets)),
                "overrides": mask_overrides(overrides, set(secrets)),
            }
            return _run(plan, record, folder)
        except BaseException as error:
            if rank() == 0:
                whole = [str(error) or type(error).__name__, getattr(error, "details", "")]  # with what was cut short
                write_failure(folder, overrides, "\n".join(filter(None, whole)))
            raise


def rank() -> int:
    """The number of this process among those that Lightning started for one run; it is known before they meet."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _run(plan: Plan, record: dict[str, Any], folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    reset_peak_memory()
    saved = None if plan.run.ckpt_path is None else load_checkpoint(Path(plan.run.ckpt_path))
    pl.seed_everything(plan.run.seed, workers=True, verbose=False)
    if rank() == 0:
        write_record(folder, record["config"], record["overrides"], environment(plan.run.seed, None))
    options = plan.backbone_options
    backbone = make_backbone(options) if saved is None else saved_backbone(options, saved)
    if (report := backbone.load_report) is not None and rank() == 0:
        weights = {"source": report.source, "revision": report.revision, "sha256": report.sha256}
        record["config"]["backbone"]["revision"] = report.revision  # a rerun loads the commit that this run loaded
        write_record(folder, record["config"], record["overrides"], environment(plan.run.seed, weights))
    data = make_data(
        plan.data,
        seed=plan.run.seed,
        preprocessing=backbone.preprocessing,
        num_channels=backbone.config.num_channels,
        stride=max(backbone.strides),
        masks=plan.head.name in WITH_MASKS,
    )
    task = make_task(plan, backbone, data.class_names)
    if saved is not None:
        fit_checkpoint(Path(str(plan.run.ckpt_path)), saved, task)
        saved = None  # the tensors are read again where they are needed, and would lie in memory until then
    macs = gmacs(task, (backbone.config.num_channels, *data.image_size))
    describe(plan, task, data, macs)
    record["inputs"] = dataclasses.asdict(data.preprocessing)
    record["category_ids"] = getattr(data, "category_ids", None)  # of boxes: what their files call the classes
    trainer = _trainer(plan, task, folder, record)

    seconds: dict[str, float] = {}
    if plan.run.train:
        with _timed(seconds, "fit"):
            try:
                trainer.fit(task, datamodule=data, ckpt_path=plan.run.ckpt_path, weights_only=True)
            except SystemExit as error:  # what Lightning makes of Ctrl-C, once last.ckpt is saved
                raise KeyboardInterrupt from error
    best = _best(trainer, task)
    chosen = best["path"] if plan.run.train else plan.run.ckpt_path
    if chosen is not None:
        task.load_state_dict(torch.load(chosen, map_location="cpu", weights_only=True, mmap=True)["state_dict"])
    tested: dict[str, float] = {}
    if plan.run.test:
        with _timed(seconds, "test"):
            tested = dict(trainer.test(task, datamodule=data, verbose=False)[0])
    if plan.run.train and trainer.is_global_zero:
        backbone.preprocessing = data.preprocessing
        backbone.save_pretrained(folder / "backbone")
    seconds["total"] = round(time.perf_counter() - started, 2)
    for name, why in data.skipped.items():
        log.warning("skipped %s: %s", name, why)
    if data.skipped:
        count, kind, most = len(data.skipped), data.skipped_kind, plan.data.max_errors
        log.warning("skipped %d %s; data.max_errors=%d may be", count, kind, most)
    summary = {
        "status": "ok",
        "name": plan.run.name,
        "backbone": plan.backbone_name,
        "source": backbone.backbone_type.value,
        "checkpoint": plan.source.checkpoint if plan.source.pretrained else None,
        "params": count_parameters(task),
        "gmacs": round(macs, 6),
        "image_size": list(data.image_size),
        "maps": dict(zip(backbone.out_features, backbone.strides, strict=True)),
        "epochs": trainer.current_epoch,
        "metric": task.monitor,
        "best": {key: best[key] for key in ("metric", "value", "epoch")} if best["path"] else None,
        "test": dict(sorted(tested.items(), key=lambda item: item[0] != task.monitor.replace("val/", "test/"))),
        "test_part": data.test_part,
        **task.class_scores(),
        "skipped": len(data.skipped),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "seed": plan.run.seed,
        "tags": list(plan.run.tags),
        "overrides": record["overrides"],
        "folder": str(folder),
    }
    if trainer.is_global_zero:
        write_text(folder / "metrics.json", json.dumps(finite(summary), indent=2) + "\n")
        show(plan, task, data, tested, folder)
        log.info("\n%s", run_table(summary))
    return summary


def _trainer(plan: Plan, task: Task, folder: Path, record: dict[str, Any]) -> pl.Trainer:
    options = plan.trainer
    callbacks: list[pl.Callback] = [SeedEveryBatch(plan.run.seed), EpochLines(), _Record(record, task)]
    if options.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=options.ema_decay))
    if options.early_stopping is not None:
        callbacks.append(EarlyStopping(task.monitor, mode=task.mode, patience=options.early_stopping))
    if sys.stdout.isatty():
        callbacks.append(RichProgressBar(leave=False))
    if not plan.run.debug:
        callbacks += checkpoint_callbacks(folder, task.monitor, task.mode)
    callbacks += make_plugins("callbacks", plan.callbacks, folder)
    loggers = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    try:
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=list(options.devices) if isinstance(options.devices, tuple) else options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]
            logger=[*loggers, *make_plugins("logger", plan.logger, folder)],
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            max_epochs=1 if plan.run.debug else options.max_epochs,
            max_steps=1 if plan.run.debug else options.max_steps,
            limit_train_batches=1 if plan.run.debug else options.limit_train_batches,
            limit_val_batches=1 if plan.run.debug else options.limit_val_batches,
            limit_test_batches=1 if plan.run.debug else options.limit_test_batches,
            gradient_clip_val=options.gradient_clip_val,
            accumulate_grad_batches=options.accumulate_grad_batches,
            check_val_every_n_epoch=options.check_val_every_n_epoch,
            log_every_n_steps=options.log_every_n_steps,
            deterministic=options.deterministic,
            detect_anomaly=options.detect_anomaly,
            sync_batchnorm=options.sync_batchnorm,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            enable_checkpointing=not plan.run.debug,
            use_distributed_sampler=False,  # the data module deals the images out itself
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError) as error:
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error


def finite(data: Any) -> Any:
    """Plain data with null in the place of NaN and infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


class _Record(pl.Callback):
    """Put into every checkpoint what it takes to use it: configuration, classes, backbone and preprocessing."""

    def __init__(self, record: dict[str, Any], task: Task):
        self.record = {
            **record,
            "class_names": task.class_names,
            "backbone": task.backbone.config.to_dict(),
            "preprocessing": dataclasses.asdict(task.backbone.preprocessing),
        }

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["bbframe"] = self.record


def _best(trainer: pl.Trainer, task: Task) -> dict[str, Any]:
    """The best validation result of this run, the epoch it came from (counted from 1) and its checkpoint."""
    callback = trainer.checkpoint_callback
    best: dict[str, Any] = {"metric": task.monitor, "value": None, "epoch": None, "path": None}
    score = getattr(callback, "best_model_score", None)
    if score is not None and (path := Path(callback.best_model_path)).is_file():  # type: ignore[union-attr]
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        best.update(value=float(score), epoch=saved["epoch"] + 1, path=str(path))
    return best


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)


class _AroundTheBar(logging.Handler):
    """Lines through the console that draws the progress bar, so that they come above it and not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send our lines to the terminal and to a file, warnings to the file, and keep Lightning's chatter out.

    Of several processes of one run, the first alone writes.
    """
    if rank() > 0:
        log.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        yield
        return
    file = logging.FileHandler(path, encoding="utf-8")
    terminal = _AroundTheBar() if sys.stdout.isatty() else logging.StreamHandler(sys.stdout)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal.setFormatter(logging.Formatter("%(message)s"))
    show: Callable[..., None] = warnings.showwarning
    log.setLevel(log.level or logging.INFO)  # hydra.verbose=true asks for more
    log.propagate = False
    for handler in (file, terminal):
        log.addHandler(handler)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    py_warnings = logging.getLogger("py.warnings")
    py_warnings.propagate = False
    py_warnings.addHandler(file)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = show
        for handler in (file, terminal):
            log.removeHandler(handler)
            handler.close()
        py_warnings.removeHandler(file)
