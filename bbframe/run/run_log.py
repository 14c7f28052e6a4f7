"""The log of a run: our lines go to the terminal and to train.log, one an epoch; warnings to train.log alone."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import rich

from bbframe.run.masking import outward
from bbframe.run.processes import is_first

log = logging.getLogger("bbframe")
# warnings of Lightning's about things that are as they should be
NOISE = (
    "Experiment logs directory",  # the run folder, which holds the record already
    ".*does not have many workers",  # the data module chooses their number
    ".*LeafSpec",  # Lightning's own use of torch
    "Found .* module.* in eval mode",  # frozen ones are
    "The number of training batches .* is smaller than the logging interval",
    "Checkpoint directory .* exists and is not empty",  # of a run that goes on in its folder
    "The `srun` command is available",  # on the login node of every cluster
)


class OutwardFormatter(logging.Formatter):
    """Lines without secrets or control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return outward(super().format(record))


class _AboveProgressBar(logging.Handler):
    """Print lines on the console that draws the progress bar, so that they stand above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to the terminal and to the file `path` while the block runs, without Lightning's own lines.

    Of several processes of one run the first alone logs. A terminal that the user has silenced, by
    `hydra/job_logging=disabled`, stays silent.
    """
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if not is_first():
            log.setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
            yield
            return
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(OutwardFormatter("%(asctime)s %(levelname)s %(message)s"))
        terminal = _AboveProgressBar() if sys.stdout.isatty() else logging.StreamHandler(sys.stdout)
        show: Callable[..., None] = warnings.showwarning
        log.setLevel(min(log.level or logging.INFO, logging.INFO))  # DEBUG stays
        log.propagate = False
        terminal.setFormatter(OutwardFormatter())
        handlers = [file] if log.disabled else [file, terminal]
        log.disabled = False
        for handler in handlers:
            log.addHandler(handler)
        logging.captureWarnings(True)
        py_warnings = logging.getLogger("py.warnings")
        py_warnings.propagate = False
        py_warnings.addHandler(file)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            warnings.showwarning = show
            for handler in handlers:
                log.removeHandler(handler)
            file.close()
            py_warnings.removeHandler(file)


class EpochLines(pl.Callback):
    """Log one line an epoch: the metrics at its end, and its seconds, in a resumed epoch those since it went on."""

    started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()  # a resumed epoch has no start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # ModelCheckpoint and the log come after validation, which runs inside the training epoch
        metrics = sorted(trainer.callback_metrics.items())
        shown = "  ".join(f"{name} {float(value):.4f}" for name, value in metrics)
        last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.perf_counter() - self.started
        log.info("epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, last, shown, seconds)
