"""What one job of a sweep gets of a machine on which several run at a time: a device, threads, loading processes."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbframe.run.configuration import Configuration


def visible_gpus(plan: Configuration) -> int:
    """How many GPUs a run may choose from: 0 where it runs on processors."""
    import torch

    return 0 if plan.trainer.accelerator in ("cpu", "mps", "tpu") else torch.cuda.device_count()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_share(plan: Configuration, position: int, at_once: int) -> Configuration:
    """The plan of the job that is launched in place `position`, counted from 0, beside `at_once` - 1 others.

    Where it names no device it gets GPU `position` modulo the number of GPUs. Each of several jobs at a time loads its
    images with its share of the processors. The record keeps what the user asked, so a rerun fits another machine.
    """
    if (gpus := visible_gpus(plan)) > 1 and plan.trainer.devices in (1, "1"):
        plan = dataclasses.replace(plan, trainer=dataclasses.replace(plan.trainer, devices=(position % gpus,)))
    if at_once > 1 and plan.data.num_workers is None:
        share = min(8, max(1, cores() // at_once))
        plan = dataclasses.replace(plan, data=dataclasses.replace(plan.data, num_workers=share))
    return plan


def limit_threads(at_once: int) -> None:
    """Leave torch a share of the processors, where `at_once` jobs run on them; fewer threads stay fewer."""
    import torch

    if at_once > 1:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // at_once)))
