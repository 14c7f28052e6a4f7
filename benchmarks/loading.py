"""Is loading or the training loop the bottleneck? Images a second of loading alone, of the step alone, of the run.

    python benchmarks/loading.py [backbone=resnet18,convnextv2_atto,resnet50] [images=2000] [json=FILE] [key=value ...]
    python benchmarks/loading.py backbone=resnet50 data.batch_size=128 trainer.accelerator=gpu \\
        trainer.precision=bf16-mixed

The images are JPEGs of 500x375 (quality 90; smooth noise, digits and grain) in a temporary folder, read at 224 by
data=image_folder with its usual augmentation. Loading is the data module's training loader with as many workers as in
the run and nobody else at work. The step is forward, backward and optimiser on one batch over and over, on the run's
device and in its precision. The run is Lightning with all that `train.py` gives it, checkpoints and logs included,
without validation. Each is timed from the end of its first batches on. Loading and step are measured before and after
the run, and the better counts. Prints a table in Markdown, and writes the same rows to `json`. Other arguments are
overrides as `train.py` takes them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bbframe.app.composition import composition, plain_data
from bbframe.data import make_data
from bbframe.factory import make_backbone
from bbframe.run.configuration import Configuration, parse_configuration
from bbframe.run.trainer import make_trainer

SIZE = (500, 375)  # width, height
WARM_UP = float(os.environ.get("WARM_UP", "5"))  # seconds, for workers to start and buffers to fill: uncounted
SECONDS = float(os.environ.get("SECONDS", "15"))  # of each measurement, at least


def write_images(folder: Path, count: int) -> None:
    """`count` JPEGs in ten classes: about 80 KB each, as photographs of that size are."""
    digits = load_digits()
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        for _ in range(3):
            scan = Image.fromarray((digits.images[index % len(digits.images)] * 15).astype(np.uint8))
            side = int(random.integers(60, 200))
            place = tuple(int(random.integers(0, length - 60)) for length in SIZE)
            mask = scan.resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(tuple(random.integers(0, 256, 3).tolist()), place, mask)
        grain = random.normal(0, 8, (SIZE[1], SIZE[0], 1))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        target = folder / str(digits.target[index % len(digits.images)]) / f"{index:05}.jpg"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(target, quality=90)


class Clock(pl.Callback):
    """Counts images and seconds, from WARM_UP on, and ends the training after SECONDS more."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.start = self.end = 0.0
        self.images = 0

    def tick(self, images: int) -> bool:
        """Note a batch that is done; whether that was enough."""
        self.end = time.perf_counter()
        if self.start:
            self.images += images
        elif self.end - self.began > WARM_UP:
            self.start = self.end
        return bool(self.start) and self.end - self.start > SECONDS

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
    gpu = plan.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
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
        if gpu:
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


def main() -> None:
    """Measure every backbone named, and print the table."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    if any("=" not in argument for argument in sys.argv[1:]):
        raise SystemExit(__doc__)
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    names = given.pop("backbone", "resnet18,convnextv2_atto,resnet50").split(",")
    target = given.pop("json", None)
    rows = []
    count = int(given.pop("images", "2000"))
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"torch {torch.__version__}, {cores} cores, {torch.get_num_threads()} threads; images a second\n")
    print("| backbone | workers | loading | step | run | of the slower |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, composition() as compose:
        photos = Path(place, "photos")
        photos.mkdir()
        write_images(photos, count)
        overrides = [
            f"data.root={photos}",
            "data=image_folder",
            "trainer.max_epochs=1000",
        ]
        overrides += [f"{key}={value}" for key, value in given.items()]
        for name in names:
            plan = parse_configuration(plain_data(compose, [f"backbone={name}", *overrides]))

            def fresh(plan: Configuration = plan) -> Any:
                return make_backbone(plan.backbone)

            data = data_of(plan, fresh())
            load, alone = loading(plan, fresh()), step(plan, fresh(), data.class_names, data.image_size)
            both = run(plan, fresh(), Path(place, name))
            load = max(load, loading(plan, fresh()))
            alone = max(alone, step(plan, fresh(), data.class_names, data.image_size))
            ratio, workers = both / min(load, alone), data._num_workers()
            print(f"| {name} | {workers} | {load:.0f} | {alone:.1f} | {both:.1f} | {ratio:.2f} |", flush=True)
            row = {"backbone": name, "workers": workers, "loading": load, "step": alone, "run": both, "ratio": ratio}
            rows.append(row)
            if target is not None:
                Path(target).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
