"""bbframe beside transformers and timm: the same weights, the same maps, in one run on this machine.

    make bench                                      # an hour: all but compiled training and compiled bfloat16
    make bench ARGS="--only all"                    # these too: an hour or two more
    make bench ARGS="swin resnet"                   # two architectures
    make bench ARGS="swin --only forward8 train"    # some measurements: groups, or single ones

It prints a line for each result, and leaves table.md, table.json and ratios.png in outputs/benchmark/<date>_<time>.
They are written anew after each result, so an interruption loses none; --out goes on in such a folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bbframe.run.record import cpu_name
from benchmarks import report
from benchmarks.cases import GROUPS, LIBRARIES, Case, Measure, applies, chosen_cases, chosen_measures
from benchmarks.measure import MARK, Job
from benchmarks.peers import backbone_options, config

ROOT = Path(__file__).resolve().parents[1]
STARTS = 3  # rounds of what takes ten seconds and varies little
# glibc gives larger blocks back when they are freed; what it keeps otherwise differs by 8 % from process to process
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**18), "MALLOC_MMAP_MAX_": str(10**6)}
START = {  # what a program does before its first image
    "bbframe": "from bbframe import AutoBackbone\nnet = AutoBackbone.from_config(data)",
    "transformers": "from transformers import AutoBackbone, AutoConfig\n"
    "net = AutoBackbone.from_config(AutoConfig.for_model(**data))",
    "timm": "import timm\nnet = timm.create_model({timm!r}, features_only=True, out_indices={indices}, **{options})",
}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; a wrong word is a ValueError with the nearest right one."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", help="such as swin; default: all")
    menu = "; on a GPU ".join(", ".join(groups) for groups in GROUPS.values())
    parser.add_argument("--only", nargs="+", default=[], metavar="WHAT", help=f"of {menu}; all")
    parser.add_argument("--peers", nargs="*", choices=LIBRARIES[1:], default=LIBRARIES[1:], help="default: both")
    parser.add_argument("--rounds", type=int, help="turns of each library (7, 20 on a GPU); for batch 1 three times")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="a folder; results that are there are kept")
    options = parser.parse_intermixed_args(words)
    options.cases = chosen_cases(options.architectures)
    options.measures = chosen_measures(options.only, options.device)
    options.rounds = options.rounds or (20 if options.device == "cuda" else 7)
    return options


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers belong to."""
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else None
    versions = {name: metadata.version(name) for name in ("torch", *options.peers)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_name(),
        **({"gpu": gpu} if gpu else {}),
        "cores": cores,
        "threads": options.threads,
        **versions,
        "python": platform.python_version(),
    }


def main(words: Sequence[str] | None = None) -> int:
    try:
        options = parse(words)
        if "transformers" in options.peers and importlib.util.find_spec("transformers") is None:
            raise ValueError(
                "transformers is not installed; it comes with an extra: pip install -e '.[bench]'; "
                "--peers timm leaves it out"
            )
        folder, result = open_result(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("  ".join(f"{key} {value}" for key, value in result["machine"].items()), flush=True)
    try:
        for compiled in (False, True):  # compilation takes minutes each
            wanted = {
                name: [m for m in options.measures if applies(case, Measure(m)) and Measure(m).compiled == compiled]
                for name, case in options.cases.items()
            }
            measure_cases({name: measures for name, measures in wanted.items() if measures}, options, result, folder)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
    for what, aim, reached, enough in report.targets(result["rows"]):
        print(f"{'  ' if enough else '! '}{what}: {reached}, target {aim}")
    print(folder)
    return 0


def open_result(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder and what it holds already; ValueError when that is another machine's."""
    here = machine(options)
    folder = options.out or ROOT / "outputs" / "benchmark" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": here, "rows": {}}
    if (folder / "table.json").is_file():
        result = json.loads((folder / "table.json").read_text())
        if result["machine"] != here:
            raise ValueError(
                f"--out {folder}: holds results of {result['machine']}, not of {here}; choose another folder"
            )
    return folder, result


def measure_cases(
    wanted: dict[str, list[str]], options: argparse.Namespace, result: dict[str, Any], folder: Path
) -> None:
    """Fill the rows of these architectures with their measurements; whatever fails is named there.

    On a CPU each architecture has a process of its own, and the memory of each library another; on a GPU, whose
    memory torch counts, one process measures all.
    """
    gpu = options.device == "cuda"
    jobs = []
    for name, measures in wanted.items():
        case = options.cases[name]
        row = {"title": case.title, "note": case.note, "errors": {}, "measures": {}}
        result["rows"].setdefault(name, row)
        choices = {name: case.choice}
        if case.against:
            choices[case.against] = chosen_cases([case.against])[case.against].choice
        data = {key: backbone_options(choice) for key, choice in choices.items()}
        together = [m for m in measures if gpu or Measure(m).kind not in ("memory", "start")]
        jobs.append(Job(name, data, together, options.rounds, options.threads, options.device, list(options.peers)))
    for group in [jobs] if gpu else [[job] for job in jobs]:
        for found in child([job for job in group if job.measures]):
            name, measure = found.pop("case"), found.pop("measure", None)
            row = result["rows"][name]
            if measure is None:
                row["errors"].update(found.pop("errors", {}))
                row.update(found)
            else:
                keep(row, measure, found, options.cases[name], result, folder)
        for job in group:
            case, row = options.cases[job.case], result["rows"][job.case]
            for m in [m for m in wanted[job.case] if m not in job.measures]:
                memory = Measure(m).kind == "memory"
                found = memory_of_each(job, case, m) if memory else start(case, job.options[job.case], options)
                keep(row, m, found, case, result, folder)


def keep(
    row: dict[str, Any], name: str, found: dict[str, Any], case: Case, result: dict[str, Any], folder: Path
) -> None:
    """Enter a measurement, show it, and write the files."""
    row["measures"][name] = found
    print(report.one_line(case.title, name, row), flush=True)
    report.write(result, folder)


def child(jobs: Sequence[Job], **environment: str) -> Iterator[dict[str, Any]]:
    """What a process of its own measures, as it comes.

    When it dies, what is left of the case at hand is an error, and another process goes on with the next case.
    """
    left = {job.case: list(job.measures) for job in jobs}
    while jobs:
        command = [sys.executable, "-m", "benchmarks.measure", json.dumps([dataclasses.asdict(job) for job in jobs])]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=said, text=True
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith(MARK):
                        found = json.loads(line.removeprefix(MARK))
                        if found.get("measure") in left[found["case"]]:
                            left[found["case"]].remove(found["measure"])
                        yield found
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            said.seek(0)
            last = (said.read().strip().splitlines() or [""])[-1]
        if not process.returncode:
            return
        jobs = [job for job in jobs if left[job.case]]
        if not jobs:
            return
        failed, *jobs = jobs
        why = f"the process ended with {process.returncode}: {last[:200]}"
        for name in left[failed.case]:
            yield {"case": failed.case, "measure": name, "values": {}, "errors": {"bbframe": why}}


def memory_of_each(job: Job, case: Case, name: str) -> dict[str, Any]:
    """Peak memory of each library in a process of its own."""
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    there = {"bbframe": True, "transformers": case.transformers, "timm": case.timm}
    for library in [library for library in LIBRARIES if there[library] and library in ("bbframe", *job.peers)]:
        for found in child([dataclasses.replace(job, measures=[name], library=library)], **FREED_AT_ONCE):
            if "value" in found:
                values[library] = found["value"]
            else:
                errors[library] = found["errors"]["bbframe"]
    return {"values": values, "errors": errors}


def start(case: Case, data: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the first line of a fresh process to a backbone, and of building it once more."""
    stated = config(case, data).to_dict()
    given = {"timm": case.timm, "indices": [i + case.shift for i in case.indices], "options": case.timm_options}
    libraries = [name for name in LIBRARIES if name in ("bbframe", *options.peers) and (name != "timm" or case.timm)]
    whole: dict[str, list[float]] = {library: [] for library in libraries}
    again: dict[str, list[float]] = {library: [] for library in libraries}
    errors: dict[str, str] = {}
    for turn in range(min(options.rounds, STARTS) + 1):
        for library in libraries:
            code = START[library].format(**given) if library == "timm" else START[library]
            built = code.splitlines()[-1]
            program = (
                f"import time\nbegin = time.perf_counter()\ndata = {stated!r}\n{code}\nend = time.perf_counter()\n"
                f"{built}\nprint(end - begin, time.perf_counter() - end)"
            )
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
            )
            if done.returncode:
                errors[library] = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
            elif turn:  # the first warms the disk's cache
                for taken, seconds in zip((whole, again), done.stdout.split()[-2:], strict=True):
                    taken[library].append(float(seconds))
    found: dict[str, Any] = {"values": {name: statistics.median(taken) for name, taken in whole.items() if taken}}
    found["built_again"] = {name: statistics.median(taken) for name, taken in again.items() if taken}
    return {**found, "errors": errors}


if __name__ == "__main__":
    sys.exit(main())
