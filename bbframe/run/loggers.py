"""The loggers of a run, from their start to their end; a resumed run goes on with the runs that they had begun."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger

from bbframe.files import write_text
from bbframe.run.checkpoint import EPOCHS, LoadedCheckpoint
from bbframe.run.configuration import Configuration
from bbframe.run.lightning_parts import LightningClass, make_lightning_parts
from bbframe.run.processes import is_first
from bbframe.run.trackio_logger import TrackioLogger

log = logging.getLogger("bbframe")

KEY = "logger_ids"  # where a checkpoint keeps them
FILE = "loggers.json"  # and a run folder
PROJECT = "bbframe"  # what collects runs, unless the options or the environment say another
STORE = "mlflow.db"  # in the run folder, unless the environment names a server
MLFLOW_URI = "MLFLOW_TRACKING_URI"
LONGEST_PARAMETER = 250  # characters; Lightning cuts the values for MLflow there


class LoggerIds(pl.Callback):
    """Puts what the loggers' services call this run into every checkpoint."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self.ids = dict(ids)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.ids:
            checkpoint[KEY] = self.ids


@dataclass
class RunLoggers:
    """The loggers of the run in `folder`; `ids` are what their services call it, by the key of the configuration."""

    plan: Configuration
    folder: Path
    config: Mapping[str, Any]
    saved: LoadedCheckpoint | None
    loggers: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The run's name."""
        return self.plan.run.name or self.plan.backbone_name

    def make(self) -> None:
        """Make the loggers. Raises ValueError for options that they refuse."""
        if is_first():
            self.ids = self._known_ids()
            self._take_over_stores()
        parts = {key: self._completed(key, part) for key, part in self.plan.logger.items()}
        with _environment_kept(MLFLOW_URI):
            self.loggers = dict(zip(parts, make_lightning_parts("logger", parts, self.folder), strict=True))

    def start(self, stack: ExitStack) -> None:
        """Start every logger, tell it the configuration, and let `stack` end it. Raises ValueError in one line."""
        resumed = dict(self.ids)
        for key, logger in self.loggers.items():
            try:
                stack.push(lambda kind, error, trace, logger=logger: _end(logger, failed=error is not None))
                with redirect_stdout(StringIO()), _environment_kept(MLFLOW_URI):
                    self._start_one(key, logger)
                    self._log_last_row(logger)
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"logger.{key}: cannot start: {reason[:500]}; logger=csv trains without it"
                ) from error
            if key in self.ids:
                what = "goes on with" if resumed.get(key) == self.ids[key] else "run"
                log.info("logger    %s: %s %s", key, what, self.ids[key])
        if self.ids:
            write_text(self.folder / FILE, json.dumps(self.ids, indent=2) + "\n")

    def _known_ids(self) -> dict[str, str]:
        """The ids of the run that is resumed: those in its checkpoint, else those that this folder holds already."""
        found: Any = {}
        if self.saved is not None and self.plan.run.train:
            found = self.saved.content.get(KEY)
        elif self.saved is None and (self.folder / FILE).is_file():
            with suppress(ValueError):
                found = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        found = found if isinstance(found, Mapping) else {}
        plain = {key: str(name) for key, name in found.items() if re.fullmatch(r"[\w.-]{1,64}", str(name))}
        return {key: name for key, name in plain.items() if key in self.plan.logger}

    @property
    def _old_folder(self) -> Path | None:
        """The run folder that is resumed in this one."""
        if self.saved is None or not self.plan.run.train:
            return None
        home = self.saved.path.resolve().parent
        old = home.parent if home.name == "checkpoints" else home
        return None if old == self.folder.resolve() else old

    def _take_over_stores(self) -> None:
        """Copy what local loggers had written in the folder of the resumed run, as its checkpoints are copied."""
        if (old := self._old_folder) is None:
            return
        if (old / STORE).is_file() and not (self.folder / STORE).exists():
            with (
                closing(sqlite3.connect(old / STORE)) as source,
                closing(sqlite3.connect(self.folder / STORE)) as copy,
            ):
                source.backup(copy)
        for key, part in self.plan.logger.items():
            named = isinstance(part, LightningClass) and part.target.endswith("TensorBoardLogger")
            place = _event_folder(part.arguments) if named and isinstance(part, LightningClass) else Path("trackio")
            if (old / place).is_dir() and not (self.folder / place).exists() and (named or key in self.ids):
                shutil.copytree(old / place, self.folder / place)

    def _completed(self, key: str, part: Any) -> Any:
        """The description of a logger of Lightning's with the run's name, tags and id where it leaves them open."""
        kind = part.target.rpartition(".")[2] if isinstance(part, LightningClass) else ""
        tags, known = self.plan.run.tags, self.ids.get(key)
        more: dict[str, Any] = {}
        if kind == "WandbLogger":
            project = os.environ.get("WANDB_PROJECT") or PROJECT
            more = {"name": self.label, "project": project, "id": known, "tags": list(tags)}
        elif kind == "MLFlowLogger":
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            more = {"run_name": self.label, "experiment_name": experiment, "run_id": known}
            more |= {"tags": dict.fromkeys(tags, "true")}
            more |= {"tracking_uri": os.environ.get(MLFLOW_URI) or f"sqlite:///{self.folder.resolve() / STORE}"}
            if not os.environ.get(MLFLOW_URI):
                more |= {"artifact_location": (self.folder.resolve() / "mlflow_artifacts").as_uri()}
        elif kind == "TensorBoardLogger" and self.saved is not None and self.plan.run.train:
            more = {"purge_step": self.saved.content["global_step"]}  # the steps behind it are done again
        if not kind:
            return part
        given = {name: value for name, value in part.arguments.items() if value is not None}
        return replace(part, arguments={**{n: v for n, v in more.items() if v is not None}, **given})

    def _start_one(self, key: str, logger: Any) -> None:
        config = dict(self.config)
        if isinstance(logger, TrackioLogger):
            logger.start(self.label, self.ids.get(key), config)
            self.ids[key] = str(logger.version)
        elif isinstance(logger, WandbLogger):
            self.ids[key] = str(logger.experiment.id)
            logger.log_hyperparams(config)
        elif isinstance(logger, MLFlowLogger):
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            self.ids[key] = str(logger.run_id)
            _log_to_mlflow(logger, config)
        elif not isinstance(logger, CSVLogger):  # which would write the configuration a second time
            logger.log_hyperparams(config)

    def _log_last_row(self, logger: Logger) -> None:
        """Log the row of the epoch that the checkpoint ends: a run that is stopped there has not logged it yet."""
        if self.saved is None or not self.plan.run.train:
            return
        state = self.saved.content[EPOCHS]
        if state["rows"] and not any(state["means"]):
            row = dict(state["rows"][-1])
            step = row.pop("step") - 1
            logger.log_metrics({**row, "epoch": row["epoch"] - 1}, step)  # Lightning counts from 0


@contextmanager
def started_loggers(
    plan: Configuration, folder: Path, config: Mapping[str, Any], saved: LoadedCheckpoint | None
) -> Iterator[tuple[list[Logger], LoggerIds]]:
    """The loggers of a run, and the callback that lets a resumed one go on with them, while the block runs.

    They are told the run's name, tags and `config` (masked). With the checkpoint `saved` they go on with its run.
    Raises ValueError in one line when one cannot start.
    """
    run = RunLoggers(plan, folder, config, saved)
    with ExitStack() as stack:
        run.make()
        if is_first():
            run.start(stack)
        yield list(run.loggers.values()), LoggerIds(run.ids)


def _event_folder(arguments: Mapping[str, Any]) -> Path:
    """Where TensorBoard's logger writes, below the run folder."""
    name, version = arguments.get("name", "lightning_logs"), arguments.get("version")
    return Path(arguments.get("save_dir") or "", name or "", str(version if version is not None else "version_0"))


def _log_to_mlflow(logger: MLFlowLogger, config: Mapping[str, Any]) -> None:
    """Log hyperparameters to MLflow, which lets none change: in a resumed run a changed one becomes a tag."""
    client, flat = logger.experiment, dict(_flat(config))
    run = client.get_run(logger.run_id)
    if run.info.status != "RUNNING":
        client.update_run(logger.run_id, status="RUNNING")
    known = run.data.params
    logger.log_hyperparams({key: value for key, value in flat.items() if key not in known})
    for key, value in flat.items():
        if known.get(key, value) != value:
            client.set_tag(logger.run_id, f"resumed/{key}", value)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested plain data as {"group/key": text}."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", str(value)[:LONGEST_PARAMETER]


def _end(logger: Any, failed: bool) -> None:
    """Let a logger write what it still holds, and close its run."""
    with redirect_stdout(StringIO()):
        if isinstance(logger, TrackioLogger):
            logger.finish()
        elif isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=int(failed))
        else:
            logger.finalize("failed" if failed else "success")


@contextmanager
def _environment_kept(variable: str) -> Iterator[None]:
    """Undo what a library does to an environment variable: the next run of a sweep would take it for the user's."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
