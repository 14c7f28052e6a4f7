"""One run: a configuration becomes a trained network and a folder that holds what repeats it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from bbframe.backbone import Backbone
from bbframe.data import make_data
from bbframe.data.data_module import DataModule
from bbframe.files import remove_parts
from bbframe.registry import plugins
from bbframe.report.profile import count_parameters, gmacs, latency, peak_memory_bytes, reset_peak_memory
from bbframe.run.automatic_options import settle_automatic_options
from bbframe.run.best_checkpoint import BestCheckpoint, BestEpoch
from bbframe.run.calibration_file import fit_calibration, write_calibration
from bbframe.run.checkpoint import SECONDS, LoadedCheckpoint, SavedRun, checkpoint_in, load_checkpoint
from bbframe.run.cluster import process_count
from bbframe.run.configuration import Configuration
from bbframe.run.failed_processes import failures_watched, told_once
from bbframe.run.global_batch import keep_global_batch
from bbframe.run.lightning_checkpoints import RunInCheckpoint
from bbframe.run.loggers import started_loggers
from bbframe.run.machine_failures import in_one_line
from bbframe.run.masking import mask_overrides, mask_secrets, remember
from bbframe.run.processes import is_first
from bbframe.run.record import environment, write_configuration, write_failure, write_record
from bbframe.run.results import log_images, log_network, write_failure_page, write_results
from bbframe.run.run_log import logging_to
from bbframe.run.sharded_strategy import to_train, whole_state
from bbframe.run.stop_signals import signals_kept, signals_raised
from bbframe.run.stopwatch import Stopwatch
from bbframe.run.trainer import make_trainer
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")


def run(
    plan: Configuration,
    config: dict[str, Any],
    overrides: list[str],
    folder: Path,
    secrets: Set[str] = frozenset(),
    *,
    goes_on_from: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, Any]:
    """Do what a plan says, in an existing folder; returns what `metrics.json` then holds.

    `config` is the plain data that the plan was parsed from, and `overrides` made it: both are recorded, without the
    values in `secrets`. `goes_on_from` is the last.ckpt that an earlier start of this very run has left. One of the
    `callbacks` may give the run up, which its `pruned` says. Raises ValueError for whatever the user can mend; any
    failure leaves its text in `error.txt`.
    """
    remember(secrets)
    processes = process_count(plan.trainer)
    failed = partial(write_failure, folder, overrides)
    with signals_raised(), logging_to(folder / "train.log"), failures_watched(folder, processes, failed):
        try:
            recorded = mask_secrets(config), mask_overrides(overrides)
            return TrainingRun(plan, *recorded, folder, goes_on_from, callbacks).complete()
        except BaseException as error:
            told = told_once(in_one_line(error, folder), folder, processes)
            if is_first():
                details = getattr(error, "details", "")  # what a message of one line had to cut short
                with suppress(OSError):  # a full disk must not hide what happened
                    failed(f"{str(told) or type(told).__name__}\n{details}".rstrip())
                    write_failure_page(folder, told)
            if told is error:
                raise
            raise told from error


@dataclass
class TrainingRun:
    """A run in its steps. `config` and `overrides` are those of the record; `stopwatch` times the steps."""

    plan: Configuration
    config: dict[str, Any]
    overrides: list[str]
    folder: Path
    goes_on_from: Path | None = None
    callbacks: Sequence[pl.Callback] = ()
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def complete(self) -> dict[str, Any]:
        """Build, train, test and report."""
        with self.stopwatch.timed("total"):
            reset_peak_memory()
            saved = self.opened_checkpoint()
            pl.seed_everything(self.plan.run.seed, workers=True, verbose=False)
            backbone = self.recorded_backbone(saved)
            task, data = self.network_and_data(backbone)
            if saved is not None:
                saved.check_fits(task)
            found = self.settle_automatic(task, data, saved)
            macs = gmacs(task, (backbone.config.num_channels, *data.image_size))
            log_network(self.plan, task, data, macs)
            images = log_images(data, min(backbone.strides)) if is_first() else {}
            with started_loggers(self.plan, self.folder, self.config, saved) as (loggers, ids):
                callbacks = [RunInCheckpoint(self.saved_run(task, data), self.stopwatch), ids, *self.callbacks]
                trainer = make_trainer(self.plan, task, self.folder, callbacks, loggers)
                if saved is not None and self.plan.run.train:
                    keep_global_batch(trainer, data, self.plan, saved)
                best = self.trained(trainer, task, data, saved)
                test = self.tested(trainer, task, data)
        return self.reported(trainer, task, data, {"gmacs": round(macs, 6), "found": found, **images}, best, test)

    @property
    def pruned(self) -> bool:
        """Whether a callback has given the run up: it is then neither trained to its end nor tested."""
        return any(getattr(callback, "pruned", False) for callback in self.callbacks)

    def opened_checkpoint(self) -> LoadedCheckpoint | None:
        """The checkpoint that the plan names, by its file or its run folder, whose last or best one it then is.

        Raises ValueError when it cannot serve.
        """
        options, path = self.plan.run, self.goes_on_from
        if path is None and options.ckpt_path is None:
            return None
        if path is None:
            path = checkpoint_in(
                Path(str(options.ckpt_path)).expanduser(), ("last", "best") if options.train else ("best", "last")
            )
            self.config["ckpt_path"] = str(path)
        self.plan = dataclasses.replace(self.plan, run=dataclasses.replace(options, ckpt_path=str(path)))
        saved = load_checkpoint(path)
        saved.check_complete(options.train)
        if self.goes_on_from is not None:
            log.info("start     goes on from %s, after %d optimizer steps", path, saved.content["global_step"])
        if options.train:
            self.stopwatch.go_on_from(saved.content[SECONDS])
        if is_first():
            remove_parts(path.parent)
        return saved

    def recorded_backbone(self, saved: LoadedCheckpoint | None) -> Backbone:
        """Write the record, build the backbone, and record the weights that it has loaded."""
        seed = self.plan.run.seed
        if is_first():
            write_record(self.folder, self.config, self.overrides, environment(seed, None))
        backbone = self.plan.make_backbone(None if saved is None else saved.run)
        if (report := backbone.load_report) is not None and is_first():
            names = ("source", "revision", "sha256")
            weights = {**{name: getattr(report, name) for name in names}, "report": str(report)}
            self.config["backbone"]["revision"] = report.revision  # a rerun loads the commit that this run loaded
            write_record(self.folder, self.config, self.overrides, environment(seed, weights))
        return backbone

    def network_and_data(self, backbone: Backbone) -> tuple[Task, DataModule]:
        """The images, and the network over their classes."""
        data = make_data(
            self.plan.data,
            seed=self.plan.run.seed,
            preprocessing=backbone.preprocessing,
            num_channels=backbone.config.num_channels,
            stride=max(backbone.strides),
            masks=self.plan.head.masks,
        )
        self.config["data"] |= data.found_options()
        if is_first():
            write_configuration(self.folder, self.config)
        return self.plan.make_task(backbone, data.class_names), data

    def settle_automatic(self, task: Task, data: DataModule, saved: LoadedCheckpoint | None) -> dict[str, Any]:
        """Find the options that are `auto`, which the record then holds as numbers: {option: number}."""
        self.plan, found = settle_automatic_options(self.plan, self.config, task, data, saved, self.folder)
        return found

    def saved_run(self, task: Task, data: DataModule) -> SavedRun:
        """The record for the checkpoints."""
        return SavedRun(
            config=self.config,
            overrides=self.overrides,
            plugins=[dataclasses.asdict(plugin) for plugin in plugins()],
            class_names=task.class_names,
            category_ids=getattr(data, "category_ids", None),
            backbone=task.backbone.config.to_dict(),
            preprocessing=dataclasses.asdict(task.backbone.preprocessing),
            inputs=dataclasses.asdict(data.preprocessing),
        )

    def trained(
        self, trainer: pl.Trainer, task: Task, data: DataModule, saved: LoadedCheckpoint | None
    ) -> BestEpoch | None:
        """Train if the plan says so, and give the task the weights of the best epoch.

        Returns that epoch, None without one. The weights are then those after the last step, or the checkpoint's when
        there was nothing to train.
        """
        fitted = to_train(task, trainer)
        if self.plan.run.train:
            with self.stopwatch.timed("fit"):
                try:
                    with signals_kept(trainer):
                        trainer.fit(fitted, datamodule=data, ckpt_path=self.plan.run.ckpt_path, weights_only=True)
                except MisconfigurationException as error:
                    raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
        kept = next(
            (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)), None
        )
        stayed = saved is not None and trainer.global_step in (0, saved.content["global_step"])
        if kept is not None and kept.best is not None:
            task.load_state_dict(load_checkpoint(Path(kept.best_model_path)).content["state_dict"])
            return kept.best
        if self.plan.run.train and kept is not None:
            log.info("best      no epoch with a finite %s is kept: the last step's weights stand", task.monitor)
        if saved is not None and stayed:
            task.load_state_dict(saved.content["state_dict"])
        elif fitted is not task:
            task.load_state_dict(whole_state(fitted))
        return None

    def tested(self, trainer: pl.Trainer, task: Task, data: DataModule) -> dict[str, float]:
        """Test if the plan says so, and save the trained backbone; returns {metric without "test/": value}.

        The monitored metric comes first.
        """
        metrics: dict[str, float] = {}
        if self.plan.run.test and not self.pruned:
            with self.stopwatch.timed("test"), signals_kept(trainer):
                write_calibration(self.folder, fit_calibration(trainer, task, data), task)
                found = trainer.test(task, datamodule=data, verbose=False)[0]
            metrics = {name.removeprefix("test/"): value for name, value in found.items()}
        if self.plan.run.train and trainer.is_global_zero:
            task.backbone.preprocessing = data.preprocessing
            task.backbone.save_pretrained(self.folder / "backbone")
        return dict(sorted(metrics.items(), key=lambda item: item[0] != task.metric_name))

    def reported(
        self,
        trainer: pl.Trainer,
        task: Task,
        data: DataModule,
        measured: dict[str, Any],
        best: BestEpoch | None,
        test: dict[str, float],
    ) -> dict[str, Any]:
        """Write and log the results, with what was `measured` before; returns the content of metrics.json."""
        plan, backbone, source = self.plan, task.backbone, self.plan.backbone.source
        intervals, calibration = task.intervals(), task.calibration()
        shape = (backbone.config.num_channels, *data.image_size)
        summary = {
            "status": "pruned" if self.pruned else "ok",
            "name": plan.run.name,
            "task": plan.task.name,
            "data": plan.data.name,
            "head": plan.head.name,
            "backbone": plan.backbone_name,
            "source": backbone.backbone_type.value,
            "checkpoint": source.checkpoint if source.pretrained else None,
            "params": count_parameters(task),
            **measured,
            "image_size": list(data.image_size),
            "maps": dict(zip(backbone.out_features, backbone.strides, strict=True)),
            "epochs": trainer.current_epoch,
            "metric": task.metric_name,
            "mode": task.mode,
            "val": {} if best is None else {task.metric_name: best.value},
            "best_epoch": None if best is None else best.epoch,
            "test": test,
            "test_low": {name: low for name, (low, _) in intervals.items()},
            "test_high": {name: high for name, (_, high) in intervals.items()},
            "test_part": data.test_part,
            "test_images": len(task.tested),
            "test_sha256": data.fingerprint(data.test_part, task.tested) if task.tested else None,
            **({"calibration": calibration} if calibration else {}),
            **task.class_scores(),
            "skipped": len(data.skipped),
            "assumed": {what: len(names) for what, names in data.assumed.items()},
            "seconds": self.stopwatch.seconds(),
            "peak_memory_bytes": peak_memory_bytes(),
            "latency_seconds": round(latency(task, shape, trainer.strategy.root_device), 6),
            "seed": plan.run.seed,
            "tags": list(plan.run.tags),
            "overrides": self.overrides,
            "folder": str(self.folder),
        }
        summary = mask_secrets(summary, by_name=False)
        if trainer.is_global_zero:
            write_results(plan, task, data, summary, self.folder)
            if plan.trainer.keep == 0:
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return summary
