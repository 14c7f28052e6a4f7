"""Training loaders side by side: ours, timm's, the usual one of torchvision; and what JPEG decoding alone allows.

All read the same JPEGs with as many workers and in batches of the same size: a random part of 0.35 to 1 of the area at
the size and by the interpolation that the network wants, and a flip in half of the cases. All end with normalised
floats on the run's device. Each is started anew in each round and timed from the first batch of every worker on, over
whole turns of the workers, because a loader that waits has batches ready that cost nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.io import decode_jpeg

SCALE, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)  # of data=image_folder
DECODING = "torchvision's decode_jpeg alone"
OURS = "bbframe"


def write_images(folder: Path, size: tuple[int, int], count: int, names: int) -> float:
    """`count` JPEGs of a (width, height) in ten classes, and links until there are as many `names`; KB a file.

    Smooth noise, digits and grain, quality 90: about as many bytes as a photograph of that size.
    """
    digits = load_digits()
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        for _ in range(3):
            scan = Image.fromarray((digits.images[index % len(digits.images)] * 15).astype(np.uint8))
            side = int(random.integers(min(size) // 6, min(size) // 2))
            place = tuple(int(random.integers(0, length - min(size) // 6)) for length in size)
            mask = scan.resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(tuple(random.integers(0, 256, 3).tolist()), place, mask)
        grain = random.normal(0, 8, (size[1], size[0], 1)).astype(np.float32)
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        target = folder / str(digits.target[index % len(digits.images)]) / f"{index:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target, quality=90)
    files = sorted(folder.rglob("*.jpg"))
    for index in range(count, names):
        first = files[index % count]
        first.with_name(f"{index:05}.jpg").hardlink_to(first)
    return sum(file.stat().st_size for file in files) / len(files) / 1000


class Contest:
    """The loaders over one folder of images, by name: each measures its images a second for some seconds.

    `ours` makes a training loader and ends its workers; `settled` are the size, mean, std and interpolation that the
    network wants.
    """

    def __init__(
        self,
        root: Path,
        ours: tuple[Callable[[], Any], Callable[[], None]],
        settled: Any,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        self.root, self.ours, self.settled = root, ours, settled
        self.batch_size, self.workers, self.device = batch_size, workers, device
        self.contestants: dict[str, Callable[[float], float]] = {
            DECODING: self.decoding,
            OURS: self.own,
            "timm, use_prefetcher=True": lambda seconds: self.timed(self.timm(True), seconds),
            "timm, use_prefetcher=False": lambda seconds: self.timed(self.timm(False), seconds),
            "torchvision's ImageFolder and DataLoader": lambda seconds: self.timed(self.usual(), seconds),
        }

    def measure(self, rounds: int, seconds: float) -> dict[str, float]:
        """The median images a second of each, measured in turn, A B C A B C."""
        found: dict[str, list[float]] = {name: [] for name in self.contestants}
        for _ in range(rounds):
            for name, contestant in self.contestants.items():
                found[name].append(contestant(seconds))
        return {name: statistics.median(rates) for name, rates in found.items()}

    def own(self, seconds: float) -> float:
        start, end = self.ours
        rate = self.timed(start(), seconds)
        end()
        return rate

    def decoding(self, seconds: float) -> float:
        """Bytes in memory to a tensor, in as many processes as there are workers, with one thread each."""
        contents = [np.fromfile(path, np.uint8) for path in sorted(self.root.rglob("*.jpg"))[:50]]
        context = multiprocessing.get_context("fork")
        count = max(1, self.workers)
        barrier, rates = context.Barrier(count), context.Queue()
        processes = [context.Process(target=_decode, args=(contents, seconds, barrier, rates)) for _ in range(count)]
        for process in processes:
            process.start()
        total = sum(rates.get() for _ in processes)
        for process in processes:
            process.join()
        return total

    def timm(self, prefetcher: bool) -> Any:
        """timm's loader for training as its train.py makes it, without the augmentations that ours has not."""
        return timm.data.create_loader(
            timm.data.create_dataset("", root=str(self.root), is_training=True),
            input_size=(3, *self.settled.size),
            batch_size=self.batch_size,
            is_training=True,
            use_prefetcher=prefetcher,
            scale=SCALE,
            ratio=RATIO,
            hflip=0.5,
            color_jitter=0.0,
            interpolation=self.settled.interpolation,
            mean=self.settled.mean,
            std=self.settled.std,
            num_workers=self.workers,
            persistent_workers=False,
            pin_memory=self.device.type == "cuda",
            device=self.device,
        )

    def usual(self) -> Any:
        """A DataLoader as lightning-hydra-template's data module makes it, over torchvision's ImageFolder."""
        mode = transforms.InterpolationMode(self.settled.interpolation)
        steps = [
            transforms.RandomResizedCrop(self.settled.size, SCALE, RATIO, interpolation=mode),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(self.settled.mean, self.settled.std),
        ]
        return DataLoader(
            datasets.ImageFolder(str(self.root), transforms.Compose(steps)),
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            shuffle=True,
        )

    def timed(self, loader: Any, seconds: float) -> float:
        """Images a second, from the first batch of each worker on."""
        turn = max(1, self.workers)
        start, count = 0.0, 0
        for number, image in enumerate(self.images(loader), 1):
            if number % turn:
                count += len(image)
                continue
            if image.is_cuda:
                torch.cuda.synchronize()
            now = time.perf_counter()
            if not start:
                start, count = now, 0
                continue
            count += len(image)
            if now - start > seconds:
                return count / (now - start)
        raise AssertionError("a loader over epochs without end has ended")

    def images(self, loader: Any) -> Iterator[torch.Tensor]:
        """The batches of one epoch after another, ready for a step."""
        while True:
            for batch in loader:
                image = (batch["image"] if isinstance(batch, dict) else batch[0]).to(self.device, non_blocking=True)
                assert image.dtype == torch.float32
                yield image


def _decode(contents: list[np.ndarray], seconds: float, barrier: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torchvision announces the end of its decoders
    images = [torch.from_numpy(content) for content in contents]
    decode_jpeg(images[0])
    barrier.wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        decode_jpeg(images[count % len(images)])
        count += 1
    rates.put(count / (time.perf_counter() - start))
