"""A process knows its number among those of its run from the environment, as Lightning does."""

from __future__ import annotations

import os
import time
from threading import Thread

import pytest
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch.distributed import TCPStore

from bbframe.run import processes
from bbframe.run.agreement import Meeting, ToldByFirst
from bbframe.run.cluster import placed_processes
from bbframe.run.configuration import TrainerOptions
from bbframe.run.processes import is_first, rank

SLURM = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
LSF = {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/hosts", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "2"}
POD = {"MASTER_ADDR": "first", "MASTER_PORT": "23456", "WORLD_SIZE": "2"}
AGENT = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
CASES = [
    ({}, 0),
    ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, 0),  # Lightning's own first process
    ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, 1),  # and the one that it starts
    ({"LOCAL_RANK": "1", "RANK": "0"}, 1),  # started by it inside a container that has a number of its own
    ({"RANK": "3"}, 3),
    ({"RANK": "1", "LOCAL_RANK": "0"}, 1),
    ({**POD, "RANK": "0"}, 0),  # of Kubeflow
    ({**POD, "RANK": "1"}, 1),
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
        own = ("MASTER_", "SLURM_", "LSB_", "JSM_", "TORCHELASTIC_", "OMPI_", "PMI_")
        if name.endswith(("RANK", "WORLD_SIZE")) or name.startswith(own):
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


LAYOUTS = [
    ({}, None),
    ({**POD, "RANK": "1"}, (1, 2)),
    ({**AGENT, "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}, (2, 2)),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0"}, (2, 2)),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "bash"}, None),
    # srun in such a shell, and a script that `srun bash` starts
    ({**SLURM, "SLURM_PROCID": "1", **STEP, "SLURM_JOB_NAME": "interactive"}, (2, 1)),
    ({**SLURM, "SLURM_PROCID": "1", **STEP, "SLURM_JOB_NAME": "bash"}, (2, 1)),
]


@pytest.mark.parametrize(("variables", "placed"), LAYOUTS)
def test_the_processes_of_a_launcher_settle_devices_and_nodes(variables, placed, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = placed_processes(TrainerOptions())
    assert found == {"devices": placed[0] if placed else "auto", "num_nodes": placed[1] if placed else 1}
    if placed is not None:
        assert placed_processes(TrainerOptions(devices=placed[0], num_nodes=placed[1])) == found
        for wrong, option in (({"devices": 7}, "devices"), ({"num_nodes": 3}, "num_nodes")):
            with pytest.raises(ValueError, match=rf"trainer: {option}=[37], but .* give trainer.{option}=[12]"):
                placed_processes(TrainerOptions(**wrong))


@pytest.mark.parametrize("connected", [True, False])
def test_mpi_counts_where_its_processes_can_meet(connected, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: object() if connected else None)
    assert rank() == int(connected)


@pytest.mark.parametrize(
    ("variable", "said"), [("OMPI_COMM_WORLD_SIZE", "pip install mpi4py"), ("PMI_SIZE", "torchrun")]
)
def test_processes_of_mpi_that_cannot_meet_do_not_train_side_by_side(variable, said, monkeypatch):
    monkeypatch.setenv(variable, "2")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"has started 2 processes.*{said}"):
        placed_processes(TrainerOptions())


def test_a_shell_with_a_terminal_starts_one_process(monkeypatch):
    """`srun --ntasks=2 --pty bash` gives the first task a terminal."""
    for name, value in {**SLURM, "SLURM_PROCID": "0", **STEP, "SLURM_JOB_NAME": "bash"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.sys.stdin, "isatty", lambda: True, raising=False)
    assert processes.launcher() == "lightning"


def test_a_node_after_the_first_is_never_first(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first()


def agreed(port: int, number: int, count: int, served: bool, errors: dict[int, ValueError], results: list):
    place = Meeting(number, count, "127.0.0.1", port, served)
    try:
        results[number] = place.agree(errors.get(number), {"number": number}, lambda facts: {"all": facts})
    except ValueError as error:
        results[number] = error


def met(port: int, count: int, errors: dict[int, ValueError], served: bool = False, first_late: bool = False) -> list:
    """What each of several processes, here threads, has from a meeting."""
    results: list = [None] * count
    threads = [Thread(target=agreed, args=(port, i, count, served, errors, results)) for i in range(count)]
    for thread in [*threads[1:], threads[0]] if first_late else threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(60)
    return results


kept = []


@pytest.fixture
def port():
    """The port of a store that outlives the processes, as that of torchrun's agent."""
    store = TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
    kept.append(store)
    return store.port


@pytest.mark.long
@pytest.mark.parametrize("first_late", [False, True])
def test_several_processes_agree_again_and_again_in_one_store(port, first_late, monkeypatch):
    """What an earlier start has left is not taken for new, and the process group has a store of its own."""
    for name in ("MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "")  # is set again at the end
    ports = []
    everything = {"all": [{"number": number} for number in range(3)]}
    for _ in range(3):
        assert met(port, 3, {}, True, first_late) == [everything] * 3
        assert os.environ["MASTER_PORT"] not in (*ports, str(port))
        ports.append(os.environ["MASTER_PORT"])
        first, second, third = met(port, 3, {1: ValueError("no such folder")}, True, first_late)
        assert str(first) == "process 1: no such folder"
        assert type(second) is type(third) is ToldByFirst
        assert type(met(port, 2, {0: ValueError("none")}, True, first_late)[1]) is ToldByFirst
        met(port, 3, {2: ValueError("none")}, True, first_late)
