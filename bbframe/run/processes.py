"""Who has started the processes of a run and which of them this is, known before the processes have met."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import NamedTuple

# tells the processes that Lightning starts where their run writes, and what it goes on from, as JSON
RUN_FOLDER_VARIABLE = "BBFRAME_RUN_FOLDER"
# the variables by which Lightning knows that jsrun started a process
JSRUN = ("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE")
# those of torch.distributed, which Kubeflow's PyTorchJob gives to each pod
POD = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")


class Layout(NamedTuple):
    """How many processes a launcher has started: on each node, and on how many nodes; `said` is who says so."""

    devices: int
    num_nodes: int
    said: str


def launcher() -> str:
    """What has started this process: torchrun, slurm, jsrun, mpi, kubeflow, or lightning for everything else.

    The launchers are asked in Lightning's order; Kubeflow's, which Lightning does not look for, comes last.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if "SLURM_NTASKS" in os.environ and not _typed_in_slurm_shell():
        return "slurm"
    if all(variable in os.environ for variable in JSRUN):
        return "jsrun"
    if "OMPI_COMM_WORLD_RANK" in os.environ and importlib.util.find_spec("mpi4py") is not None:
        return "mpi"
    if all(variable in os.environ for variable in POD) and "LOCAL_RANK" not in os.environ:
        return "kubeflow"
    return "lightning"


def in_slurm_shell() -> bool:
    """Whether Slurm runs a shell for a person, by the names of jobs that Lightning knows too."""
    return os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")


def _typed_in_slurm_shell() -> bool:
    """Whether a person typed the command into such a shell, without srun before it.

    The shell may be the first of several tasks: `srun --ntasks=2 --pty bash`. Only its own commands have a terminal.
    """
    alone = _number("SLURM_STEP_NUM_TASKS", "1") == 1
    return in_slurm_shell() and (alone or (sys.stdin is not None and sys.stdin.isatty()))


def rank() -> int:
    """The number of this process in its run: 0 for the first process, above 0 for every other.

    Under Lightning's own launcher the number is exact on the first node; on others it is above 0.
    """
    kind = launcher()
    if kind != "lightning":
        return _number(RANKS[kind])
    node = _number("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return node * _number("LOCAL_WORLD_SIZE", "1") + _number("LOCAL_RANK") or _number("RANK")


RANKS = {
    "torchrun": "RANK",
    "slurm": "SLURM_PROCID",
    "jsrun": "JSM_NAMESPACE_RANK",
    "mpi": "OMPI_COMM_WORLD_RANK",
    "kubeflow": "RANK",
}
SIZES = {
    "torchrun": "WORLD_SIZE",
    "slurm": "SLURM_NTASKS",
    "jsrun": "JSM_NAMESPACE_SIZE",
    "mpi": "OMPI_COMM_WORLD_SIZE",
    "kubeflow": "WORLD_SIZE",
}


def started() -> int:
    """How many processes a launcher has started; 1 under Lightning's own, which starts the others later."""
    kind = launcher()
    return 1 if kind == "lightning" else _number(SIZES[kind], "1")


def layout() -> Layout | None:
    """The processes that a launcher has started, None where Lightning starts them.

    Raises ValueError in one line where each node does not have as many as every other.
    """
    kind, size = launcher(), started()
    if kind == "lightning":
        _check_mpi()
        return None
    if kind == "slurm" and size > 1 and "SLURM_STEP_ID" not in os.environ:
        raise ValueError(
            f"Slurm gives this job {size} tasks, and the command was started once; type srun before it, or give the "
            "job one task: --ntasks=1"
        )
    nodes = {
        "torchrun": _number("GROUP_WORLD_SIZE", str(max(1, size // _number("LOCAL_WORLD_SIZE", "1")))),
        "slurm": _number("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", "1")),
        "jsrun": 0,
        "mpi": size // _number("OMPI_COMM_WORLD_LOCAL_SIZE", str(size)),
        "kubeflow": size,
    }[kind]
    if kind == "jsrun":
        with open(os.environ["LSB_DJOB_RANKFILE"], encoding="utf-8") as file:
            nodes = len({line.strip() for line in list(file)[1:]})
    if size % max(1, nodes):
        raise ValueError(
            f"{kind} has started {size} processes on {nodes} nodes; start as many on each, because Lightning counts so"
        )
    return Layout(size // max(1, nodes), max(1, nodes), f"{kind} has started {size} processes on {nodes} nodes")


def _check_mpi() -> None:
    """Refuse the processes of an mpirun that cannot find each other: each would train on its own.

    Slurm sets the variable of the second kind for its own tasks, too.
    """
    if (size := _number("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"mpirun has started {size} processes, which find each other by mpi4py: pip install mpi4py, or start them "
            "by torchrun"
        )
    if (size := _number("PMI_SIZE", "1")) > 1 and "SLURM_NTASKS" not in os.environ:
        raise ValueError(f"mpiexec has started {size} processes, which cannot find each other; start them by torchrun")


def launched_by_lightning() -> bool:
    """Whether Lightning has started this process, after the first of its node, which knows the run folder."""
    return launcher() == "lightning" and RUN_FOLDER_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def is_first() -> bool:
    """Whether this process makes the run folder and writes into it."""
    return rank() == 0


def _number(variable: str, default: str = "0") -> int:
    return int(os.environ.get(variable, default))
