"""`make gpu` without a GPU: shrunk on the CPU, and what it says of missing packages and of lost time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu

SCRIPT = Path(gpu.__file__)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script puts its folders there


@pytest.mark.slow
def test_every_part_runs_shrunk_on_a_cpu(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {part: found["ended"] for part, found in parts.items()} == dict.fromkeys(gpu.SECONDS, "exit status 0")
    assert parts["tests"]["passed"] >= 6
    assert parts["tests"]["failed"] == []
    assert parts["compare"]["measures"]["ResNet-50"]["forward1"]["values"]["bbframe"] > 0
    assert parts["compare"]["not_reached"] == []
    (row,) = parts["loading"]["rows"]
    assert row["backbone"] == "resnet18"
    assert min(row["loading"], row["step"], row["run"]) > 0
    text = (tmp_path / "gpu.md").read_text()
    assert "0 failed" in text
    assert "| resnet18 | 0 |" in text


@pytest.mark.long
def test_a_part_that_takes_too_long_is_ended_with_all_its_processes(tmp_path):
    program = "import subprocess; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    began = time.monotonic()
    lines = list(gpu.lines_of([sys.executable, "-c", program], 2, tmp_path / "log", dict(os.environ)))
    assert lines == ["begun", "out of time after 2 s"]
    assert time.monotonic() - began < 20
    lines = list(gpu.lines_of([sys.executable, "-c", "raise SystemExit(3)"], 20, tmp_path / "log", dict(os.environ)))
    assert lines == ["exit status 3"]


@pytest.mark.long
def test_a_missing_package_is_named_and_its_part_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.NEEDS, "loading", {"no_such_module": "no-such-package"})
    words = ["--device", "cpu", "--small", "--only", "loading", "--out", str(tmp_path), "--wheels"]
    assert gpu.main([*words, str(tmp_path / "wheels")]) == 0
    said = f"missing: no-such-package; there is no folder {tmp_path / 'wheels'} to install them from"
    assert said in capsys.readouterr().out
    assert gpu.main([*words, str(tmp_path)]) == 0
    assert f"missing: no-such-package; installed from {tmp_path}: none" in capsys.readouterr().out
    text = (tmp_path / "gpu.md").read_text()
    assert "## Loading\n\nnot run: no-such-package not installed\n" in text


def test_a_machine_without_a_gpu_is_told_what_to_type(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: torch finds no CUDA device; --device cpu --small tries every part without one\n"
    )


def test_the_report_says_what_failed_and_what_was_not_reached():
    tests = {"ended": "exit status 1", "seconds": 9.0, "passed": 3, "skipped": 1, "failed": ["tests/gpu/test_a.py::b"]}
    compare = {"ended": "out of time after 180 s", "seconds": 180.0, "not_reached": ["Swin-T bf16-train64"]}
    text = gpu.markdown(
        {"device": {"device": "H100"}, "seconds": 200.0, "parts": {"tests": tests, "compare": compare}}
    )
    assert "3 passed, 1 failed, 1 skipped\n- failed: tests/gpu/test_a.py::b\n" in text
    assert "out of time after 180 s (180 s)\n\nNot reached: Swin-T bf16-train64\n" in text
