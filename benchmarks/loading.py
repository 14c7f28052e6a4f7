"""Images a second: of the loaders side by side, of a step alone, and of a whole run beside the slower of its halves.

    python benchmarks/loading.py [photos=500x375,2000x1500] [backbone=resnet18,convnextv2_atto,resnet50] [rounds=3]
        [images=300] [json=FILE] [key=value ...]
    python benchmarks/loading.py backbone=resnet50 data.batch_size=128 trainer.accelerator=gpu \\
        trainer.precision=bf16-mixed

Two tables, each measured in one process, in turn (A B C A B C): medians of `rounds`, for runs of one round less. An
empty `photos=` or `backbone=` leaves one of them out.

1. Loaders, for JPEGs of each size in `photos` (`images` files, named several times; about as many bytes as photographs
   have): see benchmarks/image_loaders.py. Ours is the training loader of data=image_folder.
2. Whole runs, for each backbone, on the first size. Loading is the training loader with nobody else at work. The step
   is forward, backward and optimiser on one batch over and over, on the run's device and in its precision. The run is
   Lightning with all that `train.py` gives it, checkpoints and logs included, without validation. On a CPU loading and
   step share the cores: what they allow together is 1 / (1 / loading + 1 / step), and the last column counts by that.

Prints Markdown, and writes the same rows to `json`. Other arguments are overrides as `train.py` takes them.
WARM_UP and SECONDS in the environment are the lengths of each measurement.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bbframe.app.composition import composition, plain_data
from bbframe.data import make_data
from bbframe.factory import make_backbone
from bbframe.imaging.jpeg_file import tensor_decoder
from bbframe.run.configuration import Configuration, parse_configuration
from bbframe.run.record import cpu_name
from bbframe.run.trainer import make_trainer
from benchmarks.image_loaders import DECODING, OURS, Contest, write_images

NAMES = 3000  # files of a folder, so that an epoch is longer than a measurement
WARM_UP = float(os.environ.get("WARM_UP", "2"))  # seconds, for workers to start and buffers to fill: uncounted
SECONDS = float(os.environ.get("SECONDS", "3"))  # of each measurement, at least
BATCHES = 10  # of each measurement, at least: steps of seconds vary


class Clock(pl.Callback):
    """Counts images and seconds, from WARM_UP and two batches on; ends the training after SECONDS and BATCHES more."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.start = self.end = 0.0
        self.images = self.batches = 0

    def tick(self, images: int) -> bool:
        """Note a batch that is done; whether that was enough."""
        self.end = time.perf_counter()
        self.batches += 1
        if self.start:
            self.images += images
        elif self.end - self.began > WARM_UP and self.batches > 1:
            self.start, self.batches = self.end, 0
        return bool(self.start) and self.end - self.start > SECONDS and self.batches >= BATCHES

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / (self.end - self.start)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        trainer.should_stop = self.tick(len(batch["image"]))


def endless(loader: Any) -> Iterator[dict[str, Any]]:
    """One epoch after another."""
    while True:
        yield from loader


def loading(plan: Configuration, backbone: Any) -> float:
    """Images a second of the training loader alone."""
    data = data_of(plan, backbone)
    clock = Clock()
    for batch in endless(data.train_dataloader()):
        if clock.tick(len(batch["image"])):
            break
    data.teardown("fit")
    return clock.rate


def step(plan: Configuration, backbone: Any, names: list[str], size: tuple[int, int]) -> float:
    """Images a second of forward, backward and optimiser, on one batch over and over."""
    device = device_of(plan)
    task = plan.make_task(backbone, names).to(device)
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)
    count = plan.data.batch_size
    image = torch.randn(count, 3, *size, device=device)
    label = torch.arange(count, device=device) % len(names)
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(plan.trainer.precision)
    clock = Clock()
    while True:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(task(image), label)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if clock.tick(count):
            return clock.rate


def run(plan: Configuration, backbone: Any, folder: Path) -> float:
    """Images a second of a training as `train.py` makes it."""
    data = data_of(plan, backbone)
    task = plan.make_task(backbone, data.class_names)
    trainer = make_trainer(plan, task, folder)
    trainer.limit_val_batches = 0  # training alone is timed
    clock = Clock()
    trainer.callbacks.append(clock)
    trainer.fit(task, datamodule=data)
    return clock.rate


def data_of(plan: Configuration, backbone: Any) -> Any:
    """The data module of a run."""
    return make_data(plan.data, seed=0, preprocessing=backbone.preprocessing, num_channels=3, stride=32, masks=False)


def device_of(plan: Configuration) -> torch.device:
    """Where a run takes its steps."""
    gpu = plan.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def compare_loaders(plan: Configuration, photos: str, kilobytes: float, rounds: int) -> dict[str, Any]:
    """The loaders over the photographs of a plan, as a row of the table."""
    data = data_of(plan, make_backbone(plan.backbone))
    ours = data.train_dataloader, lambda: data.teardown("fit")
    root = Path(plan.data.root, "train")  # type: ignore[attr-defined]
    workers = data._num_workers()
    rates = Contest(root, ours, data.preprocessing, data.batch_size, workers, device_of(plan)).measure(rounds, SECONDS)
    peers = {name: rate for name, rate in rates.items() if name not in (DECODING, OURS)}
    ratios = {"of_faster_peer": rates[OURS] / max(peers.values()), "of_decoding": rates[OURS] / rates[DECODING]}
    return {"photos": photos, "kilobytes": kilobytes, "workers": workers, "rates": rates, **ratios}


def compare_run(name: str, plan: Configuration, place: Path, rounds: int) -> dict[str, Any]:
    """Loading, step and run of a backbone in turn, as a row of the table."""
    data = data_of(plan, make_backbone(plan.backbone))
    parts: dict[str, Callable[[Any], float]] = {
        "loading": lambda backbone: loading(plan, backbone),
        "step": lambda backbone: step(plan, backbone, data.class_names, data.image_size),
        "run": lambda backbone: run(plan, backbone, Path(tempfile.mkdtemp(dir=place))),
    }
    found: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(rounds):
        for part, measured in parts.items():
            found[part].append(measured(make_backbone(plan.backbone)))
    rates = {part: statistics.median(values) for part, values in found.items()}
    slower = min(rates["loading"], rates["step"])
    both = slower if device_of(plan).type == "cuda" else 1 / (1 / rates["loading"] + 1 / rates["step"])
    ratios = {"ratio": rates["run"] / slower, "of_both": rates["run"] / both}
    return {"backbone": name, "workers": data._num_workers(), "batch_size": data.batch_size, **rates, **ratios}


def main() -> None:
    """Measure what is asked, and print the tables."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    if any("=" not in argument for argument in sys.argv[1:]):
        raise SystemExit(__doc__)
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    names = given.pop("backbone", "resnet18,convnextv2_atto,resnet50").split(",")
    sizes = given.pop("photos", "500x375,2000x1500").split(",")
    target, count, rounds = given.pop("json", None), int(given.pop("images", "300")), int(given.pop("rounds", "3"))
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("timm").setLevel(logging.ERROR)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"processor": cpu_name(), "cores": cores, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    machine["decoder"] = (tensor_decoder() or ["Pillow"])[0]
    result: dict[str, Any] = {"machine": machine, "loaders": [], "runs": []}

    def keep(kind: str, row: dict[str, Any]) -> None:
        result[kind].append(row)
        if target is not None:
            Path(target).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    print(" · ".join(f"{key} {value}" for key, value in machine.items()), "· images a second")
    with tempfile.TemporaryDirectory() as place, composition() as compose:

        def plan_of(name: str, root: Path, **more: str) -> Configuration:
            words = {"backbone": name, "data": "image_folder", "data.root": str(root), "trainer.max_epochs": "1000"}
            return parse_configuration(
                plain_data(compose, [f"{k}={v}" for k, v in {**words, **more, **given}.items()])
            )

        roots = {}
        for photos in [size for size in sizes if size] or ["500x375"]:
            width, height = map(int, photos.split("x"))
            roots[photos] = Path(place, photos)
            few = max(20, count * 500 * 375 // (width * height))  # the same time to write them
            kilobytes = write_images(roots[photos] / "train", (width, height), few, NAMES)
            write_images(roots[photos] / "val", (width, height), 20, 20)
            if photos not in sizes:
                continue
            row = compare_loaders(plan_of(names[0] or "resnet18", roots[photos]), photos, kilobytes, rounds)
            keep("loaders", row)
            print(f"\n{photos}, {kilobytes:.0f} KB a file, {row['workers']} workers\n")
            print("| loader | images a second | ours is times as fast |\n|---|---|---|")
            for name, rate in row["rates"].items():
                print(f"| {name} | {rate:.0f} | {row['rates'][OURS] / rate:.2f} |", flush=True)
        if not any(names):
            return
        print("\n| backbone | workers | batch | loading | step | run | of the slower | of both together |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name in names:
            plan = plan_of(name, next(iter(roots.values())))
            if "data.batch_size" not in given and device_of(plan).type == "cpu":
                plan = plan_of(name, next(iter(roots.values())), **{"data.batch_size": "16"})  # steps of a few seconds
            row = compare_run(name, plan, Path(place), max(1, rounds - 1))
            keep("runs", row)
            cells = [name, row["workers"], row["batch_size"], *(f"{row[k]:.1f}" for k in ("loading", "step", "run"))]
            print(f"| {' | '.join(map(str, cells))} | {row['ratio']:.2f} | {row['of_both']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
