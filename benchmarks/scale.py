"""What a training on many GPUs asks of storage, processors and network, on paper, and which of them is too slow.

    python benchmarks/scale.py [case=vitdet_huge,resnet50] [gpus=64] [key=value ...]

The network is built on torch's meta device, so its parameters and multiply-accumulates are counted and not guessed.
All else is arithmetic on the numbers below; any of them is given as key=value. Two of them
decide most and are assumptions until you measure them: `utilisation`, the share of a GPU's peak that a training
reaches, and `images_per_core`, which `benchmarks/loading.py` measures. Prints a table in Markdown.

A training step computes three times its forward pass: once forward, twice backward. DDP sends the gradients once a
step as a ring, 2 (n - 1) / n times their size for n members, within a node and between nodes; FSDP gathers the weights
twice and scatters the gradients once, 3 (n - 1) / n times (Rajbhandari et al., arXiv:1910.02054). Traffic runs beside
the backward pass, so it costs time only where it takes longer than that.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bbframe.app.composition import composition, plain_data
from bbframe.factory import make_backbone
from bbframe.heads.detectors import Detector
from bbframe.registry import make
from bbframe.report.profile import count_parameters
from bbframe.run.configuration import parse_configuration
from bbframe.run.dry_run import size_text, time_text

GRADIENT_BYTES = 4  # float32, also in mixed precision
TRAINED_BYTES = 4 + 4 + 8  # a weight, its gradient and AdamW's two moments
SAVED_BYTES = 4 + 8  # a weight and AdamW's two moments
REGIONS, POSITIVE = 512, 128  # of an image, on which torchvision trains the box head and the mask head
BACKWARD = 2 / 3  # of a step, beside which gradients travel


@dataclass(frozen=True)
class Machine:
    """A cluster of nodes with eight H100 each, as clouds rent them; bandwidths are one direction's, a second."""

    gpus: int = 8
    gpus_per_node: int = 8
    peak_tflops: float = 989.0  # of a GPU, dense bfloat16
    memory_gb: float = 80.0  # of a GPU
    nvlink_gb: float = 450.0  # of a GPU to its neighbours in the node
    network_gbit: float = 3200.0  # of a node to the others: eight adapters of 400
    cores_per_gpu: int = 12
    storage_gb: float = 2.0  # that the storage reads, for all nodes together
    write_gb: float = 1.0  # that it writes


@dataclass(frozen=True)
class Case:
    """A network and its images; rates that depend on both are of a training in mixed precision."""

    overrides: tuple[str, ...]
    size: tuple[int, int]  # height, width
    batch: int  # images a GPU
    classes: int
    file_kb: float  # of an image
    utilisation: float  # of the peak
    images_per_core: float  # read, decoded and augmented in a second
    strategy: str = "ddp"
    images_per_gpu: float | None = None  # measured; null: from the utilisation
    machine: Machine = field(default_factory=Machine)


CASES = {
    # COCO: 118,287 photographs in 19.3 GB, about 640x480; LVIS and COCO are trained at 1024
    "vitdet_huge": Case(
        ("task=detection", "head=mask_rcnn", "backbone=vitdet_huge", "data=digit_scenes"),
        (1024, 1024), 1, 80, 163.0, 0.35, 90.0, machine=Machine(gpus=64),
    ),
    # ImageNet-1k: 1,281,167 photographs in 138 GB, about 500x400
    "resnet50": Case(("backbone=resnet50",), (224, 224), 256, 1000, 108.0, 0.10, 250.0),
}  # fmt: skip


def counted(case: Case) -> tuple[int, float]:
    """The parameters of the trained network, and the multiply-accumulates of its forward pass over one image."""
    with composition() as compose:
        plan = parse_configuration(plain_data(compose, [*case.overrides, "backbone.pretrained=false"]))
    with torch.device("meta"):
        backbone = make_backbone(plan.backbone).eval()
        head: Any = make("head", plan.head, backbone.channels, backbone.strides, case.classes).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            maps = backbone(torch.zeros(1, 3, *case.size)).feature_maps
            if isinstance(head, Detector):
                detected(head, maps)
            else:
                head(maps)
    return count_parameters(backbone) + count_parameters(head), counter.get_total_flops() / 2


def detected(head: Any, maps: Sequence[torch.Tensor]) -> None:
    """Pass maps through every layer of a detector that trains on them, without the boxes in between."""
    model, levels = head.model, head.extra(head.pyramid(maps))
    if not hasattr(model, "rpn"):
        model.head(levels)
        return
    model.rpn.head(levels)
    channels, heads = levels[0].shape[1], model.roi_heads
    heads.box_predictor(heads.box_head(torch.zeros(REGIONS, channels, 7, 7)))
    if heads.has_mask():
        heads.mask_predictor(heads.mask_head(torch.zeros(POSITIVE, channels, 14, 14)))


def ring(size: float, members: int, passes: int = 2) -> float:
    """The bytes that each of the members sends, where the whole of `size` goes round."""
    return passes * (members - 1) / members * size


def computed(case: Case) -> dict[str, str]:
    """The lines of the table."""
    machine = case.machine
    nodes = max(1, machine.gpus // machine.gpus_per_node)
    local = min(machine.gpus, machine.gpus_per_node)
    parameters, macs = counted(case)
    flops = 3 * 2 * macs  # of an image's training
    rate = case.images_per_gpu or case.utilisation * machine.peak_tflops * 1e12 / flops
    step = case.batch / rate
    passes, weight = (3, 2) if case.strategy == "fsdp" else (2, GRADIENT_BYTES)
    inside, outside = ring(weight * parameters, local, passes), ring(weight * parameters, nodes, passes)
    travel = inside / (machine.nvlink_gb * 1e9) + outside / (machine.network_gbit / 8 * 1e9)
    room = step * (BACKWARD if case.strategy == "ddp" else 1)
    whole = step + max(0.0, travel - room)
    limits = {
        "GPUs": machine.gpus * rate,
        "interconnect": machine.gpus * case.batch / travel if travel else math.inf,
        "processors": machine.gpus * machine.cores_per_gpu * case.images_per_core,
        "storage": machine.storage_gb * 1e9 / (case.file_kb * 1e3),
    }
    reached = min(machine.gpus * case.batch / whole, limits["processors"], limits["storage"])
    slowest = min(limits, key=lambda name: limits[name])
    share = TRAINED_BYTES * parameters / (machine.gpus if case.strategy == "fsdp" else 1)
    saved = SAVED_BYTES * parameters
    return {
        "GPUs, nodes": f"{machine.gpus}, {nodes}",
        "parameters": f"{parameters / 1e6:.1f} M",
        "GMACs, forward": f"{macs / 1e9:.1f}",
        "global batch": str(machine.gpus * case.batch),
        "step of the GPUs alone": f"{1000 * step:.1f} ms, {rate:.1f} images a second a GPU",
        "images a second": f"{reached:,.0f}",
        "the GPUs alone": f"{limits['GPUs']:,.0f}",
        "the interconnect alone": f"{limits['interconnect']:,.0f}",
        "the processors alone": f"{limits['processors']:,.0f}",
        "the storage alone": f"{limits['storage']:,.0f}",
        "slowest": slowest,
        "read from storage": f"{size_text(reached * case.file_kb * 1e3)} a second",
        "cores that keep up": f"{reached / case.images_per_core / machine.gpus:.1f} a GPU",
        "gradients": size_text(GRADIENT_BYTES * parameters),
        "sent a step": f"{size_text(inside)} by a GPU in its node, {size_text(outside)} by a node to the others",
        "time of that": f"{1000 * travel:.1f} ms beside {1000 * room:.1f} ms",
        "weights and optimizer": f"{size_text(share)} of {machine.memory_gb:g} GB a GPU, before activations",
        "last.ckpt": f"{size_text(saved)}, written in {time_text(saved / machine.write_gb / 1e9)}",
    }


def changed(case: Case, given: dict[str, str]) -> Case:
    """The case with what the command line gives. Raises SystemExit for a key that there is not."""
    of_machine = {one.name: one for one in fields(Machine)}
    of_case = {one.name: one for one in fields(Case) if one.name not in ("overrides", "size", "machine")}
    machine = case.machine
    for key, value in given.items():
        if key in of_machine:
            machine = replace(machine, **{key: type(getattr(machine, key))(value)})  # type: ignore[arg-type]
        elif key in of_case:
            kind = str if key == "strategy" else int if key in ("batch", "classes") else float
            case = replace(case, **{key: kind(value)})  # type: ignore[arg-type]
        else:
            raise SystemExit(f"no {key!r}; there are {', '.join([*of_machine, *of_case])}")
    if case.strategy not in ("ddp", "fsdp"):
        raise SystemExit(f"strategy={case.strategy} must be ddp or fsdp")
    return replace(case, machine=machine)


def _keys(given: Machine | Case) -> str:
    """What may be given as key=value, with the values of now."""
    names = [one.name for one in fields(given) if one.name not in ("overrides", "size", "machine")]
    return ", ".join(f"{name}={getattr(given, name)}" for name in names)


def main() -> None:
    """Compute every case named, and print the table."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words) or any("=" not in word for word in words):
        print(f"{__doc__}\nOf the machine: {_keys(Machine())}\n")
        print("\n".join(f"Of {name}: {_keys(case)}" for name, case in CASES.items()))
        return
    given = dict(word.split("=", 1) for word in words)
    names = given.pop("case", ",".join(CASES)).split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    columns = [computed(changed(CASES[name], given)) for name in names]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for line in columns[0]:
        print(f"| {line} | {' | '.join(column[line] for column in columns)} |")


if __name__ == "__main__":
    main()
