"""A million small images from shards: seconds to the first batch, and the memory of all processes while it trains.

    python benchmarks/million.py make FOLDER [images=1000000] [workers=2]
    python benchmarks/million.py train FOLDER [steps=2000] [key=value ...]

`make` writes digits with noise, 8 to 32 pixels a side, as PNG files into tars: about 2 KB an image, headers and JSON
counted. `train` types a command, `python train.py data=image_folder data.shards=FOLDER ...`, and measures from that
moment on: seconds to the first training batch, and the proportional set size (PSS) of the process and of all its
children, every second: of their own memory and what they share, and of files. The second depends on what else runs,
because every program that has the same libraries open takes a share of them. Linux only. Other arguments are overrides
as `train.py` takes them.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = """
import time
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from bbframe.registry import register


@dataclass
class FirstBatchOptions:
    name: str = "first_batch"
    file: str = ""


@register("callback", "first_batch", FirstBatchOptions)
class FirstBatch(pl.Callback):
    def __init__(self, options):
        self.file = Path(options.file)

    def on_train_batch_start(self, trainer, module, batch, number):
        with self.file.open("a") as file:
            file.write(f"{time.time()} {trainer.global_step * len(batch['image'])}\\n")
"""


@dataclass
class Tiny:
    """Digits with noise that are drawn when they are asked for."""

    count: int
    first: int

    def __post_init__(self) -> None:
        from bbframe.data.images.digits import scans

        self.scans, digits = scans()
        self.labels = np.array(digits, np.int64)[(self.first + np.arange(self.count)) % len(digits)]

    def content(self, index: int) -> bytes:
        """The PNG file."""
        number = self.first + index
        random = np.random.Generator(np.random.PCG64(number))
        side = int(random.integers(8, 25)) if number % 8 else int(random.integers(8, 33))
        scan = Image.fromarray(self.scans[number % len(self.scans)]).resize((side, side), Image.Resampling.BOX)
        pixels = np.asarray(scan) // 2 + random.integers(0, 8, (side, side), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def read(self, index: int) -> Image.Image:
        """The pixels."""
        return Image.open(io.BytesIO(self.content(index)))

    def name(self, index: int) -> str:
        """What a message calls the image."""
        return f"{self.first + index}.png"


def make(folder: Path, images: int, workers: int) -> None:
    """Write the shards."""
    from bbframe.data.data_module import ImageDataModule
    from bbframe.data.images.image_options import ImageDataOptions
    from bbframe.data.shards.shard_writer import write_shards
    from bbframe.preprocessing import Preprocessing

    held = max(10, images // 1000)
    parts = {"train": Tiny(images, 0), "val": Tiny(held, images), "test": Tiny(held, images + held)}
    names = [str(digit) for digit in range(10)]
    plain: dict[str, Any] = {"seed": 0, "preprocessing": Preprocessing(size=(32, 32)), "num_channels": 3}
    data = ImageDataModule(ImageDataOptions(name="image_folder"), parts, names, **plain)
    started = time.monotonic()
    write_shards(data, "image_folder", folder, shard_bytes=64 * 10**6, workers=workers)
    size = sum(path.stat().st_size for path in folder.iterdir())
    files, seconds = len(list(folder.iterdir())), time.monotonic() - started
    print(f"{images:,} images, {size / 10**9:.2f} GB, {files} files, {seconds:.0f} s")


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found


def pss_megabytes(pid: int) -> tuple[float, float, int]:
    """The PSS of a process and all below it, of memory and of files, and how many they are."""
    own, files, pids = 0, 0, descendants(pid)
    for one in pids:
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss")}
        own += sizes["Pss_Anon"] + sizes["Pss_Shmem"]
        files += sizes["Pss_File"]
    return own / 1024, files / 1024, len(pids)


def train(folder: Path, steps: int, overrides: list[str]) -> None:
    """Train on the shards, and print a table in Markdown."""
    with tempfile.TemporaryDirectory() as place:
        marks = Path(place, "marks.txt")
        Path(place, "first_batch.py").write_text(PLUGIN.replace("\\n", "\\n"))
        words = [
            *("--plugin", "first_batch", "data=image_folder", f"data.shards={folder}", "data.batch_size=256"),
            *("data.image_size=32", "data.num_workers=2", "backbone=resnet18", "backbone.depths=[1,1,1,1]"),
            *("backbone.hidden_sizes=[8,8,16,16]", "backbone.embedding_size=8", f"trainer.max_steps={steps}"),
            *("trainer.max_epochs=-1", "trainer.accelerator=cpu", f"output_dir={place}/outputs"),
            f"+callbacks.first={{name: first_batch, file: {marks}}}",
        ]
        path = os.pathsep.join(filter(None, [place, str(ROOT), os.environ.get("PYTHONPATH")]))
        started, rows = time.time(), []
        with subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words, *overrides],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
        ) as child:
            while child.poll() is None:
                time.sleep(1)
                if marks.exists() and (lines := marks.read_text().splitlines()):
                    rows.append((int(lines[-1].split()[1]), *pss_megabytes(child.pid)))
        if not marks.exists():
            sys.exit(f"the command ended with exit code {child.returncode} before its first batch")
        first = float(marks.read_text().split()[0]) - started
        last, seen = marks.read_text().splitlines()[-1].split()
        rate = int(seen) / (float(last) - started - first)
        print(f"first batch after {first:.1f} s; {rate:,.0f} images a second; exit code {child.returncode}\n")
        print("| images | PSS of memory, MB | of files, MB | processes |\n|---|---|---|---|")
        for done, own, files, count in rows[:: max(1, len(rows) // 12)] + rows[-1:]:
            print(f"| {done:,} | {own:,.0f} | {files:,.0f} | {count} |")


def main() -> None:
    """Read the command line."""
    command, folder, *rest = sys.argv[1:] if len(sys.argv) > 2 else ["", ""]
    own = dict(word.split("=", 1) for word in rest if word.split("=")[0] in ("images", "workers", "steps"))
    if command == "make":
        make(Path(folder), int(own.get("images", 10**6)), int(own.get("workers", 2)))
    elif command == "train":
        train(Path(folder), int(own.get("steps", 2000)), [word for word in rest if word.split("=")[0] not in own])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
