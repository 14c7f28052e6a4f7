"""What a GPU makes of bbframe, in less than seven minutes: its tests, the peers beside it, and a run on JPEGs.

    make gpu                                  # on a CUDA device
    make gpu ARGS="--device cpu --small"      # every part shrunk, on the CPU, in about a minute
    python3 benchmarks/gpu.py                 # on a bare machine with torch; packages come from wheels/ if it is there

The parts run one after another, each in a process of its own with a limit of time. Results are kept as they come, in
gpu.json and gpu.md in outputs/gpu (or the folder of the environment variable OUT). A part that cannot run says why,
and one that runs out of time says what it did not reach. The exit status is 1 when a test failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASIC = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "yaml": "pyyaml", "PIL": "pillow"}
RUNS = {  # what train.py needs: {module: package}
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "antlr4": "antlr4-python3-runtime",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "timm": "timm",
    "huggingface_hub": "huggingface_hub",
    "safetensors": "safetensors",
    "rich": "rich",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
}
NEEDS = {
    "tests": {**BASIC, **RUNS, "pytest": "pytest", "faster_coco_eval": "faster-coco-eval"},
    "compare": {**BASIC, "matplotlib": "matplotlib", "safetensors": "safetensors"},
    "loading": {**BASIC, **RUNS},
}
OPTIONAL = {("tests", "faster_coco_eval"), *(("tests", name) for name in RUNS if name != "safetensors")}
SECONDS = {"tests": 150, "compare": 180, "loading": 70}
ARCHITECTURES = ["resnet", "convnext", "swin", "dinov2", "beit", "vitdet"]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a few tests, one small comparison, small JPEGs")
    parser.add_argument("--only", nargs="+", choices=list(SECONDS), default=list(SECONDS), metavar="PART")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="a folder of packages to install from")
    default = Path(os.environ.get("OUT") or ROOT / "outputs" / "gpu")
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args(words)
    options.out = options.out.resolve()
    return options


def missing(needs: dict[str, str]) -> dict[str, str]:
    """The modules that are not there: {module: package}."""
    return {module: package for module, package in needs.items() if importlib.util.find_spec(module) is None}


def install(wheels: Path, packages: Sequence[str], target: Path) -> str:
    """Install packages one by one from a folder, because one that is not in it would stop the others; says which."""
    if not wheels.is_dir():
        return f"there is no folder {wheels} to install them from"
    done = []
    for package in packages:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links"]
        if subprocess.run([*pip, str(wheels), "--target", str(target), package], capture_output=True).returncode == 0:
            done.append(package)
    return f"installed from {wheels}: {', '.join(done) or 'none'}"


def device_facts(device: str) -> dict[str, Any]:
    """What the numbers belong to."""
    import torch

    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    if device == "cpu":
        return {"device": "cpu", **facts}
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        driver = "unknown"
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **facts,
    }


def lines_of(command: Sequence[str], seconds: float, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """What a command prints, line by line, until it ends or its time is up; all of it is kept in a file.

    Every process that it started ends with it. The last line says how it ended.
    """
    end = time.monotonic() + seconds
    with log.open("w", encoding="utf-8") as kept:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=kept, stderr=subprocess.STDOUT, start_new_session=True
        )
        position, late = 0, False
        try:
            while True:
                over = process.poll() is not None
                text = log.read_bytes()[position:]
                whole = text if over else text[: text.rfind(b"\n") + 1]
                position += len(whole)
                yield from whole.decode(errors="replace").splitlines()
                if over:
                    break
                if late := time.monotonic() > end:
                    break
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    yield f"out of time after {seconds:.0f} s" if late else f"exit status {process.returncode}"


class Report:
    """The results so far, and their two files."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.began = options, time.monotonic()
        self.result: dict[str, Any] = {"parts": {}}
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        self.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(options.out / "site")])
        self.environment["BBFRAME_TEST_DEVICE"] = options.device

    def write(self) -> None:
        self.result["seconds"] = round(time.monotonic() - self.began, 1)
        for name, text in (("gpu.json", json.dumps(self.result, indent=1) + "\n"), ("gpu.md", markdown(self.result))):
            part = self.options.out / f".{name}"
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.options.out / name)

    def run(self, part: str) -> None:
        """Run one part, or say why not."""
        lacking = {m: p for m, p in missing(NEEDS[part]).items() if (part, m) not in OPTIONAL}
        found = self.result["parts"][part] = {"ended": "not run"}
        if lacking:
            found["ended"] = f"not run: {', '.join(lacking.values())} not installed"
        else:
            began = time.monotonic()
            {"tests": self.tests, "compare": self.compare, "loading": self.loading}[part](found)
            found["seconds"] = round(time.monotonic() - began, 1)
        print(f"{part}: {found['ended']}", flush=True)
        self.write()

    def lines(self, part: str, command: Sequence[str]) -> Iterator[str]:
        found = self.result["parts"][part]
        log = self.options.out / f"{part}.log"
        for line in lines_of([sys.executable, *command], SECONDS[part], log, self.environment):
            found["ended"] = line  # the last says how the command ended
            yield line

    def tests(self, found: dict[str, Any]) -> None:
        """The tests marked gpu. Warnings are shown, because a bare machine has other versions of the packages."""
        found.update(passed=0, skipped=0, failed=[])
        command = [
            "-m",
            "pytest",
            "tests/gpu",
            "-m",
            "gpu",
            "-v",
            "--tb=short",
            "-W",
            "default",
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
        ]
        command += ["-k", "resnet and not compiled"] if self.options.small else []
        if not self.options.small and not missing({"xdist": ""}) and (os.cpu_count() or 1) >= 8:
            command += ["-n", "4"]
        for line in self.lines("tests", command):
            outcome = re.search(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b", line)
            test = re.search(r"tests/gpu/\S+::\S+", line)
            if not (outcome and test) or line.startswith(("FAILED", "ERROR", "SKIPPED")):  # those of the summary
                continue
            if outcome[1] in ("FAILED", "ERROR"):
                found["failed"].append(test[0])
            else:
                found[outcome[1].lower()] += 1
            self.write()

    def compare(self, found: dict[str, Any]) -> None:
        """bbframe beside the peers that are installed."""
        peers = [name for name in ("transformers", "timm") if not missing({name: name})]
        found["peers"] = peers
        architectures, measures = (["resnet"], ["forward1"]) if self.options.small else (ARCHITECTURES, [])
        folder = self.options.out / "compare"
        command = ["-m", "benchmarks.compare", *architectures, "--device", self.options.device, "--out", str(folder)]
        command += ["--only", *measures] if measures else []
        command += ["--rounds", "1"] if self.options.small else []
        command += ["--peers", *peers]
        for line in self.lines("compare", command):
            if re.search(r"\d (ms|MiB)  ", line):
                found.setdefault("lines", []).append(line)
                self.write()
        table = folder / "table.json"
        rows = json.loads(table.read_text())["rows"] if table.is_file() else {}
        found["measures"] = {row["title"]: row["measures"] for row in rows.values()}
        from benchmarks.cases import Measure, applies, chosen_cases, chosen_measures

        found["not_reached"] = [
            f"{case.title} {measure}"
            for name, case in chosen_cases(architectures).items()
            for measure in chosen_measures(measures, self.options.device)
            if applies(case, Measure(measure)) and measure not in rows.get(name, {}).get("measures", {})
        ]

    def loading(self, found: dict[str, Any]) -> None:
        """Images a second of the loader, the step and the run of `train.py` on JPEGs."""
        rows = self.options.out / "loading.json"
        rows.unlink(missing_ok=True)
        command = ["benchmarks/loading.py", f"json={rows}", "photos=", "rounds=1", "trainer.precision=bf16-mixed"]
        command += [f"trainer.accelerator={'gpu' if self.options.device == 'cuda' else 'cpu'}"]
        if self.options.small:
            command += ["backbone=resnet18", "images=20", "data.batch_size=4", "data.image_size=32"]
            command += ["data.num_workers=0"]
            self.environment |= {"WARM_UP": "0.1", "SECONDS": "0.3"}
        else:
            command += ["backbone=resnet50", "data.batch_size=128"]
            self.environment |= {"WARM_UP": "3", "SECONDS": "5"}
        for _ in self.lines("loading", command):
            pass
        found["rows"] = json.loads(rows.read_text())["runs"] if rows.is_file() else []


def markdown(result: dict[str, Any]) -> str:
    """The report of what there is so far."""
    facts = " · ".join(f"{key} {value}" for key, value in result.get("device", {}).items())
    lines = ["# bbframe on a GPU", "", facts, "", f"{result['seconds']:.0f} s in all."]
    lines += [f"\n{result['packages']}"] if result.get("packages") else []
    for part, found in result["parts"].items():
        took = f" ({found['seconds']:.0f} s)" if "seconds" in found else ""
        lines += ["", f"## {part.capitalize()}", "", f"{found['ended']}{took}"]
        if part == "tests" and "passed" in found:
            counts = f"{found['passed']} passed, {len(found['failed'])} failed, {found['skipped']} skipped"
            lines += ["", counts, *(f"- failed: {name}" for name in found["failed"])]
        if found.get("lines"):
            lines += ["", "```", *found["lines"], "```"]
        if found.get("not_reached"):
            lines += ["", f"Not reached: {', '.join(found['not_reached'])}"]
        if found.get("rows"):
            lines += ["", "Images a second:", "", "| backbone | workers | loading | step | run | run / slower |"]
            lines.append("|---|---|---|---|---|---|")
            for row in found["rows"]:
                numbers = [f"{row[key]:.0f}" for key in ("loading", "step", "run")]
                cells = [row["backbone"], str(row["workers"]), *numbers, f"{row['ratio']:.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    options.out.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT), str(options.out / "site")]
    report = Report(options)
    lacking = missing({module: package for part in options.only for module, package in NEEDS[part].items()})
    if lacking:
        said = install(options.wheels, list(lacking.values()), options.out / "site")
        importlib.invalidate_caches()
        report.result["packages"] = f"missing: {', '.join(lacking.values())}; {said}"
        print(report.result["packages"], flush=True)
    if missing({"torch": "torch"}):
        print("error: torch is not installed, and nothing runs without it", file=sys.stderr)
        return 2
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: torch finds no CUDA device; --device cpu --small tries every part without one", file=sys.stderr)
        return 2
    report.result["device"] = device_facts(options.device)
    print(" · ".join(f"{key} {value}" for key, value in report.result["device"].items()), flush=True)
    report.write()
    try:
        for part in options.only:
            report.run(part)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
    print(options.out / "gpu.md")
    return 1 if report.result["parts"].get("tests", {}).get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
