"""data.batch_size=auto: the largest batch whose training step fits into memory, rounded down.

Steps on a few images are measured, and the memory of larger ones follows on a straight line: weights, gradients and
the optimizer's state are the same for every size, and activations grow with the images. So nothing is tried on a CPU
that could fill the machine. On one GPU the size is then tried, and lowered while the memory does not suffice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from bbframe.data.data_module import DataModule
from bbframe.report.profile import LiveTensors
from bbframe.run.available_memory import available_gpu_memory, available_memory
from bbframe.run.cluster import placed_processes, process_count
from bbframe.run.configuration import Configuration
from bbframe.run.trainer import SeedEveryBatch
from bbframe.run.trial_training import in_all_processes, train_a_copy
from bbframe.tasks.task import Task

log = logging.getLogger("bbframe")

SMALL = (2, 4)  # images in the batches that are measured; BatchNorm cannot train on one
STEPS = 2  # the first makes the optimizer's state
CPU_SHARE, GPU_SHARE = 0.6, 0.9  # of what is free; operations on a CPU take more than their tensors
SEVERAL_GPUS_SHARE = 0.8  # where no size is tried
MOST_IMAGES = 65_536
MOST_PIXELS = 2**30  # of a batch, as the options allow


@dataclass(frozen=True)
class StepMemory:
    """The bytes of a training step: `fixed`, and `each` image more."""

    fixed: float
    each: float

    @classmethod
    def through(cls, sizes: tuple[int, int], used: tuple[float, float], least: float) -> StepMemory:
        """The straight line through two measurements, with at least `least` bytes an image."""
        each = max((used[1] - used[0]) / (sizes[1] - sizes[0]), least)
        return cls(max(0.0, used[1] - each * sizes[1]), each)

    def of(self, size: int) -> float:
        """The bytes for a batch of a size."""
        return self.fixed + self.each * size

    def fitting(self, limit: float) -> int:
        """How many images fit into `limit` bytes."""
        return int(max(0.0, limit - self.fixed) / self.each)


def rounded_down(size: int) -> int:
    """The largest multiple of 8 up to a size; below 8 the largest power of two."""
    return size - size % 8 if size >= 8 else 1 << (size.bit_length() - 1)


def find_batch_size(plan: Configuration, task: Task, data: DataModule, folder: Path) -> int:
    """The images in the largest batch of a process that fits; never more than there are training images for each.

    All processes measure at once, and the one with the least room decides. Raises ValueError in one line when not even
    the smallest batch fits.
    """
    height, width = data.image_size
    processes = process_count(plan.trainer)
    count = data.counts["train"] // processes
    most = min(count, MOST_IMAGES, MOST_PIXELS // (height * width))
    if count <= SMALL[1]:
        return rounded_down(most)

    def measured(size: int) -> tuple[float, float]:
        used, free = step_memory(plan, task, data, folder, size)
        together = 1 if _on_gpu(plan) else processes // placed_processes(plan.trainer)["num_nodes"]
        return -in_all_processes(-used, "min"), in_all_processes(free / together, "min")

    used, free = zip(measured(SMALL[0]), measured(SMALL[1]), strict=True)
    image = 4 * len(data.mean) * height * width
    line = StepMemory.through(SMALL, used, least=image)
    # batches that wait in the workers
    line = StepMemory(line.fixed, line.each + image * 2 * data._num_workers())
    tried = _on_gpu(plan) and processes == 1  # one of several that runs out of memory would leave the others waiting
    share = GPU_SHARE if tried else SEVERAL_GPUS_SHARE if _on_gpu(plan) else CPU_SHARE
    fits = line.fitting(share * min(free))
    if fits < 1:
        raise ValueError(
            f"data: batch_size=auto finds no size: a step on {SMALL[0]} images takes {_gib(used[0])}, and "
            f"{_gib(min(free))} are free; choose a smaller backbone or data.image_size, or type data.batch_size=1"
        )
    size = rounded_down(min(fits, most))
    if tried:
        size = largest_tried(size, measured)
    log.info(
        "batch     data.batch_size=%d (auto): a step takes about %s, and %s are free; %d step(s) an epoch",
        size,
        _gib(line.of(size)),
        _gib(min(free)),
        count // size,
    )
    return size


def largest_tried(size: int, attempt: Callable[[int], Any]) -> int:
    """The first of ever smaller sizes whose attempt does not run out of memory.

    Raises ValueError in one line when a single image does.
    """
    while True:
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise ValueError(
                    "data: batch_size=auto finds no size: the GPU's memory does not suffice for one image; choose a "
                    "smaller backbone or data.image_size"
                ) from error
        torch.cuda.empty_cache()
        size = rounded_down(max(1, int(size * 0.8)))


class _Device(pl.Callback):
    """Notes the device that a training runs on; a GPU's peak is measured from its start on."""

    device = torch.device("cpu")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.device = pl_module.device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def step_memory(plan: Configuration, task: Task, data: DataModule, folder: Path, size: int) -> tuple[float, float]:
    """The bytes that a training step on `size` images takes at most, and those that are free for it."""
    callbacks = [SeedEveryBatch(plan.run.seed), seen := _Device()]
    optim = replace(task.optim, lr=1e-3) if task.optim.lr == "auto" else task.optim
    trial = partial(train_a_copy, plan, task, data, folder, steps=STEPS, callbacks=callbacks, optim=optim)
    if _on_gpu(plan):
        torch.cuda.empty_cache()
        trial(batch_size=size)
        peak = torch.cuda.max_memory_allocated(seen.device)
        return peak, available_gpu_memory(seen.device)
    free = available_memory()
    with LiveTensors([*task.parameters(), *task.buffers()]) as live:
        trial(batch_size=size)
    return live.peak, free


def _on_gpu(plan: Configuration) -> bool:
    return plan.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
