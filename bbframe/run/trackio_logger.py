"""Metrics for trackio (https://github.com/gradio-app/trackio), for which Lightning has no logger."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bbframe.run.logger_options import TrackioOptions

ELSEWHERE = ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # the user's word on where trackio writes


class TrackioLogger(Logger):
    """Writes to the folder `trackio` of a run, unless the environment names another place.

    A run there is known by its name, so the name ends in random characters: `version`. With the `version` of an
    earlier logger, set before the start, that run goes on.
    """

    def __init__(self, options: TrackioOptions, folder: Path) -> None:
        super().__init__()
        self.options, self.store = options, folder / "trackio"
        self.label = options.run_name or "run"
        self._version: str | None = None
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.options.project or "bbframe"

    @property
    def version(self) -> str | None:
        """What the name of the run ends in."""
        return self._version

    @rank_zero_only
    def start(self, label: str, version: str | None, config: Mapping[str, Any]) -> None:
        """Begin the run called `label`, or go on with it; `config` are its hyperparameters."""
        trackio = importlib.import_module("trackio")
        if not any(os.environ.get(variable) for variable in ELSEWHERE):
            self._settle(trackio)
        self.label, self._version = self.options.run_name or label, version or uuid.uuid4().hex[:8]
        self._run = trackio.init(
            self.name,
            f"{self.label}-{self._version}",
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def _settle(self, trackio: Any) -> None:
        """Point trackio to this run's folder: it reads its place once, when it is imported, and a sweep has many."""
        self.store.mkdir(parents=True, exist_ok=True)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == trackio.__name__ and hasattr(module, "TRACKIO_DIR"):
                module.TRACKIO_DIR = self.store  # type: ignore[attr-defined]

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: `start` has been given them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, after a start that gave no hyperparameters where there was none."""
        if self._run is None:
            self.start(self.label, self._version, {})
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finish(self) -> None:
        """End the run, when everything is written."""
        if self._run is not None:
            importlib.import_module("trackio").finish()
            self._run = None
