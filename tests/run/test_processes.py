"""A process knows its number among those of its run from the environment, as Lightning does."""

from __future__ import annotations

import os

import pytest
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from bbframe.run import processes
from bbframe.run.processes import is_first, rank

SLURM = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
LSF = {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/hosts", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "2"}
AGENT = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
CASES = [
    ({}, 0),
    ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, 0),  # Lightning's own first process
    ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, 1),  # and the one that it starts
    ({"LOCAL_RANK": "1", "RANK": "0"}, 1),  # started by it inside a container that has a number of its own
    ({"RANK": "3"}, 3),
    ({"RANK": "1", "LOCAL_RANK": "0"}, 1),
    ({**AGENT, "RANK": "0", "GROUP_RANK": "0"}, 0),  # two torchrun agents of one process each
    ({**AGENT, "RANK": "1", "GROUP_RANK": "1"}, 1),
    ({**AGENT, "RANK": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 1),  # torchrun inside Slurm
    ({**SLURM, "SLURM_PROCID": "0"}, 0),
    ({**SLURM, "SLURM_PROCID": "1"}, 1),
    ({**SLURM, "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, 0),  # a shell inside Slurm starts one process
    ({**SLURM, "SLURM_PROCID": "1", "SLURM_JOB_NAME": "interactive", "LOCAL_RANK": "1"}, 1),
    ({**LSF, "JSM_NAMESPACE_RANK": "1"}, 1),
    ({**LSF, "JSM_NAMESPACE_RANK": "0"}, 0),
]


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in list(os.environ):
        if name.endswith("RANK") or name.startswith(("SLURM_", "LSB_", "JSM_", "TORCHELASTIC_", "OMPI_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(("variables", "number"), CASES)
def test_the_number_of_a_process(variables, number, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank() == number
    assert is_first() is (number == 0)


@pytest.mark.parametrize(("variables", "number"), CASES)
def test_lightning_counts_alike(variables, number, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    kinds = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment)
    kind = next((kind for kind in kinds if kind.detect()), LightningEnvironment)
    if kind is LightningEnvironment:
        local = kind().local_rank()
        assert (local > 0) <= (number > 0)  # it learns the node's number of processes from its own options
    else:
        assert kind.global_rank(kind.__new__(kind)) == number


@pytest.mark.parametrize("connected", [True, False])
def test_mpi_counts_where_its_processes_can_meet(connected, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: object() if connected else None)
    assert rank() == int(connected)


def test_a_node_after_the_first_is_never_first(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first()
