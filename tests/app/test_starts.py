"""A start that is repeated goes on in its own folder, and ends as if nothing had stopped it."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import bbframe.run.trainer as module
from bbframe.app import train
from bbframe.app.places import HOME
from bbframe.app.start_ledger import earlier_start, note_start

NETWORK = (
    "backbone=resnet18 backbone.depths=[1,1,1,1] backbone.hidden_sizes=[8,8,16,16] backbone.embedding_size=8 "
    "data=digits data.num_workers=0 trainer.accelerator=cpu"
).split()
LINE = [*NETWORK, "data.batch_size=256", "trainer.max_epochs=3", "hydra.run.dir=run", "ckpt_path=last"]


class Terminated(Callback):
    """SIGTERM in a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class TerminatedInTest(Callback):
    """SIGTERM while the test runs."""

    def on_test_batch_start(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)


def terminated(callback, *line):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_lightning_parts", lambda group, *_: [callback] if group == "callbacks" else [])
        assert train.main(list(line)) == 75


def left(run: Path):
    """The last checkpoint of a run, and its history."""
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    return {key: last.get(key) for key in kept}, rows


def check_equal(run: Path, expected: Path) -> None:
    (weights, rows), (wanted, wanted_rows) = left(run), left(expected)
    torch.testing.assert_close(weights, wanted, rtol=0, atol=0)
    assert rows == wanted_rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train.main(LINE) == 0  # a folder that is new begins a run
    return place / "run"


@pytest.fixture(autouse=True)
def _at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("callback", [Terminated(2), Terminated(7), TerminatedInTest()])
def test_the_same_command_again_goes_on_from_the_last_checkpoint(callback, undisturbed, capsys):
    terminated(callback, *LINE)
    assert train.main(LINE) == 0
    check_equal(Path("run"), undisturbed)
    assert not Path("run/error.txt").exists()
    assert "goes on from run/checkpoints/last.ckpt" in Path("run/train.log").read_text()
    before = Path("run/metrics.json").read_bytes()
    capsys.readouterr()
    assert train.main(LINE) == 0
    assert capsys.readouterr().out == "this run has ended well, and is not repeated: run\n"
    assert Path("run/metrics.json").read_bytes() == before


@pytest.mark.long
def test_without_a_whole_checkpoint_it_begins_anew(undisturbed, capsys):
    terminated(Terminated(2), *LINE)
    last = Path("run/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    assert train.main(LINE) == 0
    assert "the run starts anew" in capsys.readouterr().err
    check_equal(Path("run"), undisturbed)


@pytest.mark.long
def test_other_options_than_those_of_the_folder_are_named(capsys):
    terminated(Terminated(2), *LINE)
    for change, said in [
        ("optim.lr=0.5", "optim.lr="),
        ("backbone=resnet50", "backbone"),
        ("seed=4", "seed=0, and this one has seed=4"),
    ]:
        capsys.readouterr()
        assert (
            train.main([*(o for o in LINE if not change.startswith("backbone") or "backbone" not in o), change]) == 1
        )
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: hydra.run.dir=run holds a run with ")
        assert said in error
        assert "\n" not in error
    assert train.main([*LINE, "data.num_workers=1"]) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["ckpt_path=last"], "error: ckpt_path=last goes on in the folder that you name: add hydra.run.dir=<folder>"),
        (["ckpt_path=last", "-m", "seed=1,2"], "error: ckpt_path=last is for one run; a sweep goes on by resume="),
    ],
)
def test_what_cannot_go_on_is_told_what_to_type(line, said, capsys):
    assert train.main([*NETWORK, *line]) == 1
    assert capsys.readouterr().err.startswith(said)
    assert not Path("outputs").exists()


def test_a_requeued_job_repeats_its_starts_in_order(monkeypatch):
    entries = []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for folder in ("a", "b"):
        assert earlier_start(entries, []) is None
        note_start(entries, None, Path(folder), [])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for folder in ("a", "b"):
        entry = earlier_start(entries, [])
        assert entry["folder"] == folder
        note_start(entries, entry, Path(folder), [])
    assert earlier_start(entries, []) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert earlier_start(entries, []) is None


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def agent(number: int, port: int, *line: str, restarts: int = 0) -> subprocess.Popen:
    """An agent of torchrun, as one of two nodes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={number}"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", f"--max-restarts={restarts}"]
    command += ["--local-addr=127.0.0.1", "--nproc-per-node=1", str(HOME / "train.py"), *line]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(f"agent{number}.out", "w") as said:
        return subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)


def said() -> str:
    return "".join(Path(f"agent{number}.out").read_text() for number in (0, 1))


def runs() -> list[Path]:
    return list(Path("outputs/classification").glob("*"))


@pytest.mark.distributed
def test_two_agents_write_one_folder_and_say_everything_once():
    port = free_port()
    agents = [agent(n, port, *NETWORK, "data.batch_size=64", "trainer.max_epochs=2") for n in (0, 1)]
    assert [one.wait(300) for one in agents] == [0, 0], said()[-3000:]
    (run,) = runs()
    log = (run / "train.log").read_text()
    assert log.count("epoch 1/2") == said().count("epoch 1/2") == 1
    assert said().count("test/accuracy") == 1
    assert [row["epoch"] for row in left(run)[1]] == ["1", "2"]


@pytest.mark.distributed
@pytest.mark.parametrize("line", ["data.root=nowhere data=image_folder", "trainer.devices=2", "output_dir=file/x"])
def test_an_error_of_two_agents_is_said_once(line):
    Path("file").touch()
    port = free_port()
    agents = [agent(n, port, *NETWORK, *line.split()) for n in (0, 1)]
    assert all(one.wait(300) for one in agents)
    assert said().count("error: ") == 1, said()[-3000:]


@pytest.mark.distributed
def test_processes_that_an_agent_restarts_go_on_in_their_folder():
    line = [*NETWORK, "data.batch_size=32", "trainer.max_epochs=12", "trainer.checkpoint_every=10"]
    port = free_port()
    agents = [agent(n, port, *line) for n in (0, 1)]
    assert [one.wait(300) for one in agents] == [0, 0], said()[-3000:]
    (whole,) = runs()
    port = free_port()
    agents = [agent(n, port, *line, restarts=2) for n in (0, 1)]
    until = time.monotonic() + 120
    while not (new := [run for run in runs() if run != whole and (run / "checkpoints/last.ckpt").is_file()]):
        assert time.monotonic() < until, said()[-3000:]
        time.sleep(0.1)
    children = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert [one.wait(300) for one in agents] == [0, 0], said()[-3000:]
    assert len(runs()) == 2
    assert "goes on from" in (new[0] / "train.log").read_text()
    check_equal(new[0], whole)
