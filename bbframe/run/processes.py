"""Which of several processes of one run this is, known from the environment before the processes have met."""

from __future__ import annotations

import importlib.util
import os

# the variables by which Lightning knows that jsrun started a process
JSRUN = ("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE")


def rank() -> int:
    """The number of this process in its run: 0 for the first process, above 0 for every other.

    The launchers are asked in Lightning's order: torchrun, Slurm, jsrun, MPI, then Lightning itself. Under Lightning's
    own the number is exact on the first node; on others it is above 0.
    """

    def number(variable: str, default: str = "0") -> int:
        return int(os.environ.get(variable, default))

    if "TORCHELASTIC_RUN_ID" in os.environ:
        return number("RANK")
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return number("SLURM_PROCID")
    if all(variable in os.environ for variable in JSRUN):
        return number("JSM_NAMESPACE_RANK")
    if "OMPI_COMM_WORLD_RANK" in os.environ and importlib.util.find_spec("mpi4py") is not None:
        return number("OMPI_COMM_WORLD_RANK")
    node = number("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return node * number("LOCAL_WORLD_SIZE", "1") + number("LOCAL_RANK") or number("RANK")


def is_first() -> bool:
    """Whether this process makes the run folder and writes into it."""
    return rank() == 0
