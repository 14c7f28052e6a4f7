"""Lightning's view of who has started the processes, without its warnings, its requeueing and its own checks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from bbframe.run.processes import launcher, layout

if TYPE_CHECKING:
    from bbframe.run.configuration import TrainerOptions

STEP_PORTS = 97  # between the ports of two steps of one job


class Slurm(SLURMEnvironment):
    """Lightning's, which writes no checkpoint of its own: the run does, and requeues the job."""

    def __init__(self) -> None:
        found = layout()
        if found is not None:  # Lightning knows srun's --ntasks by this variable alone
            os.environ["SLURM_NTASKS_PER_NODE"] = str(found.devices)
        super().__init__(auto_requeue=False)

    @property
    def main_port(self) -> int:
        """Lightning's port of the job, another one for each of its steps, which may run side by side."""
        if "MASTER_PORT" not in os.environ and (step := os.environ.get("SLURM_STEP_ID", "0")).isdigit():
            job = int(os.environ.get("SLURM_JOB_ID", "0")[-4:])
            os.environ["MASTER_PORT"] = str(15000 + (job + STEP_PORTS * int(step)) % 10000)
        return super().main_port

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: `placed_processes` has compared them."""


KINDS: dict[str, type[ClusterEnvironment]] = {
    "torchrun": TorchElasticEnvironment,
    "slurm": Slurm,
    "jsrun": LSFEnvironment,
    "mpi": MPIEnvironment,
    "kubeflow": KubeflowEnvironment,
    "lightning": LightningEnvironment,
}


def cluster_environment() -> ClusterEnvironment:
    """What Lightning is told, so that it does not look for Slurm, which it warns of on every login node."""
    return KINDS[launcher()]()


def placed_processes(options: TrainerOptions) -> dict[str, Any]:
    """`devices` and `num_nodes` for Lightning, which a launcher of processes has settled.

    Raises ValueError in one line when the options say something else.
    """
    devices: Any = list(options.devices) if isinstance(options.devices, tuple) else options.devices
    found = layout()
    if found is None:
        return {"devices": devices, "num_nodes": options.num_nodes}
    if options.num_nodes not in (1, found.num_nodes):
        raise ValueError(
            f"trainer: num_nodes={options.num_nodes}, but {found.said}; leave out trainer.num_nodes, or give "
            f"trainer.num_nodes={found.num_nodes}"
        )
    asked = _count(devices)
    if asked not in (None, found.devices):
        raise ValueError(
            f"trainer: devices={options.devices}, but {found.said}; leave out trainer.devices, or give "
            f"trainer.devices={found.devices}"
        )
    return {"devices": devices if isinstance(devices, list) else found.devices, "num_nodes": found.num_nodes}


def _count(devices: Any) -> int | None:
    """How many devices the option asks for on each node, None where it leaves that open."""
    if devices in ("auto", -1, "-1"):
        return None
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    return len(text.split(",")) if "," in text else int(text)
