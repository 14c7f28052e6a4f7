"""What the command line says last: an error in one line, or how an interrupted run goes on."""

from __future__ import annotations

import json

import pytest

from bbframe.app.train import exit_code
from bbframe.data.faults import FaultsError
from bbframe.run.processes import RUN_FOLDER_VARIABLE
from bbframe.run.stop_signals import AGAIN, Interrupted


def failing(error):
    def run(arguments):
        raise error

    return run


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_with_all_faults_is_named_where_there_is_one(folder, monkeypatch, capsys):
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    if folder:
        monkeypatch.setenv(RUN_FOLDER_VARIABLE, "{}")
    assert exit_code(failing(FaultsError("data: two are broken", ["a", "b"], cut=True)), []) == 1
    more = "; all 2 are in error.txt of the run folder" if folder else ""
    assert capsys.readouterr().err == f"error: data: two are broken{more}\n"


def test_a_process_that_lightning_has_started_leaves_the_exit_code_to_the_first(monkeypatch, capsys):
    """Lightning kills the first process when another ends with anything but 0."""
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, "{}")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert exit_code(failing(Interrupted(15)), []) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "how"),
    [
        ([], {}, "this continues it: python train.py ckpt_path=<last>"),
        (["ckpt_path=last"], {}, "the same command goes on"),
        ([], {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "when Slurm starts this job again, it goes on in <run>"),
        ([], {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, "this continues it: python train.py ckpt_path=<last>"),
    ],
)
def test_an_interrupted_run_says_how_it_goes_on(arguments, variables, how, tmp_path, monkeypatch, capsys):
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"")
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, json.dumps({"folder": str(tmp_path)}))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert exit_code(failing(Interrupted(15)), arguments) == AGAIN
    how = how.replace("<last>", str(last)).replace("<run>", str(tmp_path))
    assert capsys.readouterr().out == f"interrupted; {how}\n"
