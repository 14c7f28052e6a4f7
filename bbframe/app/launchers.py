"""Hydra's launchers: how many jobs each runs at a time, and how a sweep limits that to its devices."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from bbframe.app.command_line import key_of
from bbframe.app.composition_errors import LAUNCHERS
from bbframe.sweep.device_share import cores

HERE = "basic"  # Hydra's own launcher: one job after the other, in this process
TOGETHER = "submitit_local"  # starts all that it is given at once
THEIR_OWN = ("submitit_slurm",)  # gives each job a machine's share by itself


PACKAGES = {"joblib": "joblib", "ray": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit"}


def check_launcher(config: DictConfig) -> None:
    """Raise ValueError when the package behind the chosen launcher is not installed."""
    if launcher_name(config) == "submitit_slurm" and shutil.which("srun") is None:
        raise ValueError("hydra/launcher=submitit_slurm needs Slurm's srun; without it use submitit_local")
    package = PACKAGES.get(name := launcher_name(config))
    if package is not None and importlib.util.find_spec(package) is None:
        raise ValueError(
            f"hydra/launcher={name} needs a package that is not installed: pip install '{LAUNCHERS[name]}'"
        )


def launcher_name(config: DictConfig) -> str:
    """The choice of `hydra/launcher`."""
    return str(config.hydra.runtime.choices.get("hydra/launcher", HERE))


def jobs_at_once(config: DictConfig, gpus: int, jobs_per_device: int | None, given: Sequence[str]) -> int:
    """How many jobs run at a time on this machine: for each GPU `jobs_per_device`, on processors as many as there are.

    joblib's `n_jobs` decides where the command line sets it. 1 for launchers that give each job its own resources.
    """
    name = launcher_name(config)
    if name == HERE or name in THEIR_OWN:
        return 1
    settings: Any = config.hydra.launcher
    if name == "joblib" and any(key_of(override) == "hydra.launcher.n_jobs" for override in given):
        stated = int(settings.n_jobs)
        return stated if stated > 0 else max(1, cores() + 1 + stated)
    if gpus:
        return gpus * (jobs_per_device or 1)
    return jobs_per_device or cores()


def limited(config: DictConfig, at_once: int) -> DictConfig:
    """The configuration of a launcher that runs `at_once` jobs at a time.

    Ray's launcher sizes an object store, which a cluster that runs already refuses to hear of.
    """
    config = config.copy()
    if launcher_name(config) == "ray":
        with read_write(config), open_dict(config):
            init = config.hydra.launcher.ray.init
            if init.get("address") or os.environ.get("RAY_ADDRESS"):
                init.setdefault("object_store_memory", None)
    if launcher_name(config) == "joblib":
        with read_write(config), open_dict(config):
            config.hydra.launcher.n_jobs = at_once
    return config


def waves(config: DictConfig, count: int, at_once: int) -> list[range]:
    """The places of `count` jobs, parted as they are handed to the launcher: in turn where it starts all at once."""
    size = at_once if launcher_name(config) == TOGETHER else max(1, count)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
