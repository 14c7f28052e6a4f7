"""Measure one architecture in a process of its own; `compare` starts it and reads a line of JSON for each result.

The libraries are timed in turn, A B C A B C, and their medians compared: a machine's times drift.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.cases import LIBRARIES, Case, Measure, cases

FLOAT32, BF16 = 1e-4, 0.05  # the relative distance that maps may have; the second of compiled ones
MARK = "@ "  # before a line for `compare`
EARLY = (1, 2)


@dataclass
class Job:
    """What `compare` asks: `options` holds the data of the files of the case and of the one it stands `against`."""

    case: str
    options: dict[str, dict[str, Any]]
    measures: list[str]
    rounds: int
    threads: int
    device: str
    peers: list[str]  # the other libraries that take part
    library: str | None = None  # measure the memory of this one


def images(case: Case, batch: int, device: str) -> Tensor:
    """Random images, the same every time."""
    made = torch.randn(batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
    return made.to(device)


def maps(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The maps of a backbone of any library."""
    given = net(x)
    return list(getattr(given, "feature_maps", given))


def forward(net: nn.Module, x: Tensor, bf16: bool) -> list[Tensor]:
    # not inference_mode: transformers' BEiT keeps a table that it then cannot train with
    with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        return maps(net, x)


def train(net: nn.Module, x: Tensor, bf16: bool) -> None:
    """A training step without its optimizer: forward, the sum of the maps' means, backward."""
    net.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        loss = sum((x.float().mean() for x in maps(net, x)), torch.zeros((), device=x.device))
    loss.backward()


def distance(a: list[Tensor], b: list[Tensor], same: int | None) -> float:
    """The largest relative distance of the last `same` maps, some of them tokens of a square."""
    a, b = (
        [x if x.ndim == 4 else x.transpose(1, 2).unflatten(2, (math.isqrt(x.shape[1]),) * 2) for x in y]
        for y in (a, b)
    )
    pairs = zip(a, b, strict=True) if same is None else zip(a[-same:], b[-same:], strict=True)
    return max(((x.float() - y.float()).norm() / y.float().norm()).item() for x, y in pairs)


@contextmanager
def library_nets(job: Job, case: Case) -> Iterator[tuple[dict[str, nn.Module], dict[str, nn.Module], dict[str, str]]]:
    """The networks of a case by library, those with two early maps, and why one could not be made."""
    nets: dict[str, nn.Module] = {}
    early: dict[str, nn.Module] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nets["bbframe"] = like = peers.ours(case, job.options[job.case])
        like.save_pretrained(folder)  # type: ignore[operator]
        two = peers.from_folder("bbframe", folder, EARLY) if case.early else None
        makers: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {}
        if case.transformers and "transformers" in job.peers:
            makers["transformers"] = (
                lambda: peers.from_folder("transformers", folder),
                lambda: peers.from_folder("transformers", folder, EARLY),
            )
        if case.timm and "timm" in job.peers:
            makers["timm"] = (lambda: peers.from_timm(case, like), lambda: peers.from_timm(case, two))
        if case.against:
            other = cases()[case.against]
            makers[f"bbframe's {other.title}"] = (
                lambda: peers.ours(other, job.options[str(case.against)]),
                lambda: nn.Identity(),
            )
        for library, (make, make_early) in makers.items():
            try:
                nets[library] = make()
                if two is not None:
                    early.update({"bbframe": two, library: make_early()})
            except Exception as error:  # one library's failure is its own column's
                errors[library] = reason(error)
        for net in (*nets.values(), *early.values()):
            net.to(job.device).eval()
        yield nets, early, errors


def compare_maps(nets: Mapping[str, nn.Module], case: Case, device: str) -> dict[str, dict[str, Any]]:
    """How far each peer's maps are from ours, whether it counts, and in bfloat16.

    There both err against float32, and neither may err more than twice as much as the other.
    """
    x, ours = images(case, 2, device), nets["bbframe"]
    torch.backends.cudnn.allow_tf32 = False  # a GPU's float32; what is timed there is bfloat16
    exact, own = forward(ours, x, False), distance(forward(ours, x, True), forward(ours, x, False), None)
    checks: dict[str, dict[str, Any]] = {}
    for library in [name for name in nets if name in LIBRARIES[1:]]:
        theirs = forward(nets[library], x, False)
        far = distance(theirs, exact, case.same)
        rough = distance(forward(nets[library], x, True), theirs, None)
        counts = {"float32": far < FLOAT32, "bf16": far < FLOAT32 and 0.5 < (own + 1e-3) / (rough + 1e-3) < 2}
        attention = getattr(getattr(nets[library], "config", None), "_attn_implementation", None)
        attention = attention if getattr(ours, "has_attentions", False) else "none"
        checks[library] = {"float32": far, "bf16": [own, rough], "counts": counts, "attention": attention}
    return checks


def timed(run: Callable[[], object], device: str) -> float:
    """Milliseconds of one call."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def time_in_turn(nets: Mapping[str, nn.Module], case: Case, measure: Measure, job: Job) -> dict[str, Any]:
    """Medians in milliseconds of each library, and why one has none."""
    x = images(case, measure.batch, job.device)
    step = train if measure.kind == "train" else forward
    runs: dict[str, Callable[[], object]] = {}
    errors: dict[str, str] = {}
    compiling: dict[str, float] = {}
    far: dict[str, float] = {}  # compiled maps from eager ones
    for library, net in nets.items():
        net.train(measure.kind == "train")
        eager = net
        if measure.compiled:  # a graph break in bbframe is an error
            net = torch.compile(net, fullgraph=not library.startswith(LIBRARIES[1:]))
        run = lambda net=net: step(net, x, measure.bf16)  # noqa: E731
        try:
            compiling[library] = timed(run, job.device) / 1e3
            if measure.compiled and measure.kind == "forward":
                far[library] = distance(forward(net, x, measure.bf16), forward(eager, x, measure.bf16), None)
                if far[library] > (BF16 if measure.bf16 else FLOAT32):
                    raise ValueError(f"the compiled maps differ by {far[library]:.1e}")
            runs[library] = run
        except Exception as error:  # one library's failure is its own column's
            errors[library] = reason(error)
    taken: dict[str, list[float]] = {library: [] for library in runs}
    rounds = job.rounds * (3 if measure.batch == 1 else 1)
    for turn in range(rounds + 1):
        for library, run in runs.items():
            milliseconds = timed(run, job.device)
            if turn:  # the first warms up
                taken[library].append(milliseconds)
    for net in nets.values():
        net.zero_grad(set_to_none=True)
    torch.compiler.reset()
    done: dict[str, Any] = {"values": {library: statistics.median(times) for library, times in taken.items()}}
    done["spread"] = {library: [min(times), max(times)] for library, times in taken.items()}
    if measure.compiled:
        done["compile_seconds"], done["compiled_distance"] = compiling, far
    return {**done, "errors": errors}


def gpu_memory(nets: Mapping[str, nn.Module], case: Case, measure: Measure) -> dict[str, Any]:
    """MiB that a training step takes at its peak above what the network, its gradients and its images hold."""
    x = images(case, measure.batch, "cuda")
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    for library, net in nets.items():
        net.train()
        try:
            for _ in range(2):  # the first takes what libraries keep for themselves
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                train(net, x, measure.bf16)
            values[library] = (torch.cuda.max_memory_allocated() - before) / 2**20
        except Exception as error:  # one library's failure is its own column's
            errors[library] = reason(error)
        net.zero_grad(set_to_none=True)
    return {"values": values, "errors": errors}


def process_memory(case: Case, options: Mapping[str, Any], library: str, measure: Measure) -> float:
    """MiB that two training steps take at their peak above what the network and its images hold, on a CPU."""
    net = peers.fresh(library, case, options).train()
    x = images(case, measure.batch, "cpu")
    stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(16, 8))
    train(stem, images(case, 1, "cpu")[..., :16, :16], measure.bf16)  # loads what first calls load
    ctypes.CDLL(None).malloc_trim(0)
    before = held("VmRSS")
    for _ in range(2):
        train(net, x, measure.bf16)
    return (held("VmHWM") - before) / 2**20


def held(what: str) -> int:
    """The bytes that this process holds (VmRSS), or has held at most (VmHWM); Linux alone tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


def reason(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def quiet() -> None:
    """Keep the peers' warnings and bars off the table."""
    warnings.simplefilter("ignore")
    if "transformers" in sys.modules:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


def send(**result: Any) -> None:
    print(MARK + json.dumps(result), flush=True)


def measure_job(job: Job) -> None:
    """Send the results of a job, each with its case."""
    case = cases()[job.case]
    if job.library is not None:
        value = process_memory(case, job.options[job.case], job.library, Measure(job.measures[0]))
        send(case=job.case, value=value)
        return
    with library_nets(job, case) as (nets, early, errors):
        parameters = sum(p.numel() for p in nets["bbframe"].parameters())
        checks = compare_maps(nets, case, job.device)
        send(case=job.case, parameters=parameters, checks=checks, errors=errors)
        for name in job.measures:
            measure = Measure(name)
            try:
                chosen = early if measure.kind == "early" else nets
                if measure.kind == "memory":
                    found = gpu_memory(chosen, case, measure)
                else:
                    found = time_in_turn(chosen, case, measure, job)
            except Exception as error:  # the others go on
                found = {"values": {}, "errors": {"bbframe": reason(error)}}
            send(case=job.case, measure=name, **found)


def main() -> None:
    jobs = [Job(**data) for data in json.loads(sys.argv[1])]
    torch.set_num_threads(jobs[0].threads)
    if "transformers" in jobs[0].peers:
        import transformers  # noqa: F401
    quiet()
    for job in jobs:
        measure_job(job)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
