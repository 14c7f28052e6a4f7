"""A job's identity, its lock, its share of the machine, and how far a sweep has come."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from bbframe.sweep import device_share
from bbframe.sweep.job_lock import is_running, job_lock
from bbframe.sweep.jobs import Job, config_sha256, read_result, report_left_out
from bbframe.sweep.progress import Progress, observe, span
from bbframe.sweep.sweep_record import RecordedJob, SweepRecord, read_sweep


def test_a_job_is_the_same_when_its_configuration_is_wherever_it_is_written():
    config = {"seed": 1, "optim": {"lr": 0.1, "name": "sgd"}, "output_dir": "a"}
    same = {"output_dir": "b", "optim": {"name": "sgd", "lr": 0.1}, "seed": 1}
    assert config_sha256(config) == config_sha256(same)
    for changed in ({"seed": 2}, {"optim": {"lr": 0.2, "name": "sgd"}}, {"name": "x"}):
        assert config_sha256({**config, **changed}) != config_sha256(config)


ASK = (
    "import sys, pathlib\nfrom bbframe.sweep.job_lock import is_running\nprint(is_running(pathlib.Path(sys.argv[1])))"
)
HOLD = "import sys, pathlib\nfrom bbframe.sweep.job_lock import job_lock\n"
HOLD += "with job_lock(pathlib.Path(sys.argv[1])) as free:\n    print(free, flush=True)\n    sys.stdin.read()\n"


def test_a_job_is_locked_until_its_process_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "True\n"
        assert is_running(tmp_path)
        with job_lock(tmp_path) as free:
            assert not free
        holder.kill()
    assert not is_running(tmp_path)
    with job_lock(tmp_path) as free:
        assert free
        assert is_running(tmp_path)  # asking does not lose the lock
        assert is_running(tmp_path)
        asked = subprocess.run([sys.executable, "-c", ASK, str(tmp_path)], capture_output=True, text=True)
        assert asked.stdout == "True\n"
    assert not is_running(tmp_path)


def plan(**changes):
    from bbframe.app.composition import composition, plain_data
    from bbframe.run.configuration import parse_configuration

    with composition() as compose:
        data = plain_data(compose, [f"{key}={value}" for key, value in changes.items()])
    return parse_configuration({**data, "trainer": {**data["trainer"], "devices": 1}})


@pytest.mark.parametrize(
    ("gpus", "devices"),
    [(0, [1] * 5), (1, [1] * 5), (2, [(0,), (1,), (0,), (1,), (0,)]), (4, [(0,), (1,), (2,), (3,), (0,)])],
)
def test_job_i_gets_device_i_modulo_their_number(gpus, devices, monkeypatch):
    checked = plan()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert [device_share.with_share(checked, i, gpus).trainer.devices for i in range(5)] == devices
    assert checked.trainer.devices == 1


def test_a_job_that_names_its_device_or_a_processor_keeps_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    on_cpu = plan(**{"trainer.accelerator": "cpu"})
    assert device_share.with_share(on_cpu, 1, 2).trainer.devices == 1


def test_jobs_at_a_time_share_the_processors(monkeypatch):
    monkeypatch.setattr(device_share, "cores", lambda: 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        checked = plan(**{"data.num_workers": "null"})
        assert [device_share.with_share(checked, 0, n).data.num_workers for n in (1, 2, 4, 16)] == [None, 4, 2, 1]
        assert device_share.with_share(plan(**{"data.num_workers": 3}), 0, 4).data.num_workers == 3
        device_share.limit_threads(1)
        assert torch.get_num_threads() == 6
        device_share.limit_threads(4)
        assert torch.get_num_threads() == 2
        device_share.limit_threads(2)
        assert torch.get_num_threads() == 2  # fewer stay fewer
    finally:
        torch.set_num_threads(before)


def ended(folder, value, seconds=10.0, **more):
    folder.mkdir()
    result = {"status": "ok", "metric": "accuracy", "mode": "max", "val": {"accuracy": value}, "best_epoch": 1}
    (folder / "metrics.json").write_text(json.dumps({**result, "seconds": {"total": seconds}, **more}))


def test_the_progress_is_what_the_folders_say(tmp_path):
    jobs = [Job(None, {}, ["a=1", f"seed={i}"], tmp_path / str(i)) for i in range(6)]
    ended(jobs[0].folder, 0.5)
    ended(jobs[1].folder, 0.8, 20.0)
    jobs[2].folder.mkdir()
    (jobs[2].folder / "error.txt").write_text("no\n")
    report_left_out(jobs[3].folder, jobs[3].overrides, "no time")
    with job_lock(jobs[4].folder):
        (jobs[4].folder / "metrics.csv").write_text("epoch,step,val/accuracy\n1,3,0.1\n2,6,0.2\n")
        progress = observe(jobs, 6, at_once=2, started=time.time() - 60)
    assert progress == Progress(6, 2, 1, 1, [("seed=4", 2)], ("seed=1", "val/accuracy", 0.8), 15.0)
    assert progress.line() == ("2 of 6 done, 1 failed, 1 left out, best val/accuracy 0.8000 (seed=1), about 15 s left")
    assert observe(jobs, 6, 2, started=time.time() + 60).seconds_left is None  # nothing has ended since


def test_the_best_of_a_loss_is_the_lowest(tmp_path):
    jobs = [Job(None, {}, [f"seed={i}"], tmp_path / str(i)) for i in range(2)]
    for job, value in zip(jobs, (0.5, 0.8), strict=True):
        ended(job.folder, value, mode="min")
    assert observe(jobs, 2, 1, 0.0).best == ("seed=0", "val/accuracy", 0.5)


def test_a_time_is_rounded_to_what_one_reads():
    assert [span(s) for s in (5.4, 89, 600, 5400)] == ["5 s", "89 s", "10 min", "1.5 h"]


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "failed"}', ""])
def test_what_is_no_result_is_none(text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "nowhere") is None


def test_a_record_finds_a_job_by_its_configuration_and_a_refused_one_by_its_overrides(tmp_path):
    record = SweepRecord(
        ["seed=1,2"], [], [RecordedJob("0_a", "ff", ["seed=1"]), RecordedJob("1_failed", None, ["x=1"])]
    )
    record.write(tmp_path)
    again = read_sweep(tmp_path)
    assert again == record
    assert again.job_of("ff", ["other=1"]).folder == "0_a"
    assert again.job_of(None, ["x=1"]).folder == "1_failed"
    assert again.job_of("aa", ["x=1"]) is None
    assert again.job_of("aa", ["seed=1"]) is None
    assert again.next_number() == 2
    assert read_sweep(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: []\n", "is not the record of a sweep"),
        ("overrides: [1]\n", "an override is no text"),
        ("overrides: []\njobs: [{folder: ../x, sha256: null, overrides: []}]\n", "leads out of it"),
        ("overrides: []\njobs: [{folder: x}]\n", "a job lacks its folder, hash or overrides"),
        ("overrides: []\njobs: [{folder: ., sha256: null, overrides: []}]\n", "leads out of it"),
        ("overrides: []\nplugins: [evil]\n", "a plugin is no mapping"),
        ("- a\n", "must hold a mapping"),
    ],
)
def test_a_broken_record_is_one_line(text, said, tmp_path):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_sweep(tmp_path)
