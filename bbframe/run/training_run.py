"""One run: a configuration becomes a trained network and a folder that holds what repeats it."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from bbframe.backbone import Backbone
from bbframe.data import make_data
from bbframe.data.data_module import DataModule
from bbframe.files import remove_parts
from bbframe.registry import plugins
from bbframe.report.profile import count_parameters, gmacs, peak_memory_bytes, reset_peak_memory
from bbframe.run.automatic_options import settle_automatic_options
from bbframe.run.checkpoint import LoadedCheckpoint, SavedRun, checkpoint_in, load_checkpoint
from bbframe.run.configuration import Configuration
from bbframe.run.lightning_checkpoints import RunInCheckpoint
from bbframe.run.loggers import started_loggers
from bbframe.run.masking import mask_overrides, mask_secrets, remember
from bbframe.run.processes import is_first
from bbframe.run.record import environment, write_failure, write_record
from bbframe.run.results import log_network, write_results
from bbframe.run.run_log import logging_to
from bbframe.run.stop_signals import signals_kept, signals_raised
from bbframe.run.trainer import make_trainer
from bbframe.tasks.task import Task

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, of a quota, in a file


def run(
    plan: Configuration, config: dict[str, Any], overrides: list[str], folder: Path, secrets: Set[str] = frozenset()
) -> dict[str, Any]:
    """Do what a plan says, in an existing folder; returns what `metrics.json` then holds.

    `config` is the plain data that the plan was parsed from, and `overrides` made it: both are recorded, without the
    values in `secrets`. Raises ValueError for whatever the user can mend; any failure leaves its text in `error.txt`.
    """
    remember(secrets)
    with signals_raised(), logging_to(folder / "train.log"):
        try:
            recorded = mask_secrets(config), mask_overrides(overrides)
            return TrainingRun(plan, *recorded, folder).complete()
        except BaseException as error:
            told = in_one_line(error, folder)
            if is_first():
                details = getattr(error, "details", "")  # what a message of one line had to cut short
                with suppress(OSError):  # a full disk must not hide what happened
                    write_failure(folder, overrides, f"{str(told) or type(told).__name__}\n{details}".rstrip())
            if told is error:
                raise
            raise told from error


def in_one_line(error: BaseException, folder: Path) -> BaseException:
    """A failure of the machine, such as a full disk, as a ValueError that says where and what to do."""
    last = folder / "checkpoints" / "last.ckpt"
    goes_on = f"; then this goes on: ckpt_path={last}" if last.is_file() else ""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    full = next((e for e in causes if isinstance(e, OSError) and e.errno in FULL), None)
    if full is not None and isinstance(error, Exception) and not isinstance(error, ValueError):
        where = full.filename or getattr(full, "path", None) or folder
        return ValueError(f"{where}: {full.strerror}; make room, or give another output_dir{goes_on}")
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        reason = " ".join(str(error).split())
        return ValueError(f"data: {reason} Less memory is used with data.num_workers=0{goes_on}")
    return error


@dataclass
class TrainingRun:
    """A run in its steps. `config` and `overrides` are those of the record; `seconds` is the time that steps took."""

    plan: Configuration
    config: dict[str, Any]
    overrides: list[str]
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def complete(self) -> dict[str, Any]:
        """Build, train, test and report."""
        with self.timed("total"):
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
            with started_loggers(self.plan, self.folder, self.config, saved) as (loggers, ids):
                callbacks = [RunInCheckpoint(self.saved_run(task, data)), ids]
                trainer = make_trainer(self.plan, task, self.folder, callbacks, loggers)
                scores = {"best": self.trained(trainer, task, data, saved), "test": self.tested(trainer, task, data)}
        return self.reported(trainer, task, data, {"gmacs": round(macs, 6), "found": found, **scores})

    def opened_checkpoint(self) -> LoadedCheckpoint | None:
        """The checkpoint that the plan names, by its file or its run folder, whose last or best one it then is.

        Raises ValueError when it cannot serve.
        """
        options = self.plan.run
        if options.ckpt_path is None:
            return None
        path = checkpoint_in(
            Path(options.ckpt_path).expanduser(), ("last", "best") if options.train else ("best", "last")
        )
        self.plan = dataclasses.replace(self.plan, run=dataclasses.replace(options, ckpt_path=str(path)))
        self.config["ckpt_path"] = str(path)
        saved = load_checkpoint(path)
        saved.check_complete(options.train)
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
            weights = {"source": report.source, "revision": report.revision, "sha256": report.sha256}
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
        if (bits := getattr(data.options, "bits", None)) is not None:  # as found, which a prediction must know
            self.config["data"]["bits"] = bits
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
    ) -> dict[str, Any] | None:
        """Train if the plan says so, and give the task the weights of the best epoch.

        Returns the metric, its best value and the epoch it came from (counted from 1), None without a best epoch. The
        weights are then those after the last step, or the checkpoint's when there was nothing to train.
        """
        if self.plan.run.train:
            with self.timed("fit"):
                try:
                    with signals_kept():
                        trainer.fit(task, datamodule=data, ckpt_path=self.plan.run.ckpt_path, weights_only=True)
                except MisconfigurationException as error:
                    raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        path = Path(getattr(trainer.checkpoint_callback, "best_model_path", ""))
        best = load_checkpoint(path) if score is not None and path.is_file() else None
        stayed = saved is not None and trainer.global_step in (0, saved.content["global_step"])
        if chosen := best or (saved if stayed else None):
            task.load_state_dict(chosen.content["state_dict"])
        if best is None or score is None:
            return None
        return {"metric": task.monitor, "value": float(score), "epoch": best.content["epoch"] + 1}

    def tested(self, trainer: pl.Trainer, task: Task, data: DataModule) -> dict[str, float]:
        """Test if the plan says so, and save the trained backbone; returns the metrics, the monitored one first."""
        metrics: Mapping[str, float] = {}
        if self.plan.run.test:
            with self.timed("test"), signals_kept():
                metrics = trainer.test(task, datamodule=data, verbose=False)[0]
        if self.plan.run.train and trainer.is_global_zero:
            task.backbone.preprocessing = data.preprocessing
            task.backbone.save_pretrained(self.folder / "backbone")
        return dict(sorted(metrics.items(), key=lambda item: item[0] != task.monitor.replace("val/", "test/")))

    def reported(self, trainer: pl.Trainer, task: Task, data: DataModule, scores: dict[str, Any]) -> dict[str, Any]:
        """Write and log the results; returns the content of metrics.json."""
        plan, backbone, source = self.plan, task.backbone, self.plan.backbone.source
        summary = {
            "status": "ok",
            "name": plan.run.name,
            "backbone": plan.backbone_name,
            "source": backbone.backbone_type.value,
            "checkpoint": source.checkpoint if source.pretrained else None,
            "params": count_parameters(task),
            "image_size": list(data.image_size),
            "maps": dict(zip(backbone.out_features, backbone.strides, strict=True)),
            "epochs": trainer.current_epoch,
            "metric": task.monitor,
            **scores,
            "test_part": data.test_part,
            **task.class_scores(),
            "skipped": len(data.skipped),
            "assumed": {what: len(names) for what, names in data.assumed.items()},
            "seconds": self.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
            "seed": plan.run.seed,
            "tags": list(plan.run.tags),
            "overrides": self.overrides,
            "folder": str(self.folder),
        }
        summary = mask_secrets(summary, by_name=False)
        if trainer.is_global_zero:
            write_results(plan, task, data, summary, self.folder)
        return summary

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the wall time of a step to `seconds`."""
        started = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - started, 2)
