"""Scenes of several handwritten digits on a rough ground: a detection data set that needs no download."""

from __future__ import annotations

import functools
import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.boxes.box_options import DigitScenesOptions
from bbframe.data.boxes.objects import Objects
from bbframe.data.images.digits import parted, scans
from bbframe.data.seeds import derive
from bbframe.files import atomic

VERSION = 1  # of the recipe below; a cache of another version is made anew
EMPTY = 0.03  # the share of scenes without a digit
OVERLAP = 0.2  # the largest share of the smaller of two boxes that may lie in the other
PLACES = 10  # the number of places that a digit tries before it is given up
INK = 96  # of 255; darker pixels of a scan belong to the ground


class Draw:
    """Random numbers that are the same with every version of every library."""

    def __init__(self, *parts: object):
        self.source = np.random.PCG64(derive(*parts))

    def share(self) -> float:
        """A number in [0, 1)."""
        return float(int(self.source.random_raw()) >> 11) * 2.0**-53

    def integer(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return low + int(self.share() * (high - low + 1))

    def bytes(self, height: int, width: int) -> np.ndarray:
        """(height, width) int16 in 0..255."""
        raw = self.source.random_raw(height * width // 8 + 1).astype("<u8")
        return raw.view(np.uint8)[: height * width].reshape(height, width).astype(np.int16)


@functools.lru_cache(maxsize=2048)
def enlarged(scan: int, side: int) -> np.ndarray:
    """A scan of `side` pixels, (side, side) uint8."""
    image = Image.fromarray(scans()[0][scan])
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


@dataclass
class Scenes(Objects):
    """Scenes in memory. `pasted` (objects, 4) holds scan, side, left and top of each digit.

    `numbers` are those of the scenes in their part, where some were left out.
    """

    part: str
    pixels: np.ndarray
    pasted: np.ndarray
    numbers: tuple[int, ...] | None = None

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def name(self, index: int) -> str:
        return f"{self.part} scene {index if self.numbers is None else self.numbers[index]}"

    def select(self, indices: Sequence[int]) -> Scenes:
        kept, fields = self.chosen(indices)
        numbers = tuple(i if self.numbers is None else self.numbers[i] for i in indices)
        pixels, pasted = self.pixels[list(indices)], self.pasted[kept]
        return replace(self, pixels=pixels, pasted=pasted, numbers=numbers, **fields)  # type: ignore[arg-type]

    def draw(self, number: int, mask: np.ndarray) -> None:
        scan, side, left, top = self.pasted[number].tolist()
        mask[top : top + side, left : left + side] = enlarged(scan, side) >= INK


def scene(draw: Draw, pool: Sequence[int], options: DigitScenesOptions) -> tuple[np.ndarray, list[list[int]]]:
    """One scene of the scans in `pool`: pixels (H, W) uint8, and for each digit its box, then scan, side, left, top.

    A box is tight around all the digit's ink, also where another digit covers it.
    """
    height, width = options.canvas
    coarse = draw.bytes(draw.integer(2, 6), draw.integer(2, 6)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    ground, rough, noise = draw.integer(0, 40), draw.integer(0, 40), draw.integer(0, 30)
    pixels = ground + smooth * rough // 255 + draw.bytes(height, width) * noise // 255
    found: list[list[int]] = []
    count = 0 if draw.share() < EMPTY else draw.integer(*options.num_digits)
    for _ in range(count):
        scan, side = pool[draw.integer(0, len(pool) - 1)], draw.integer(*options.digit_size)
        level, ink = draw.integer(190, 255), enlarged(scan, side)
        rows, columns = (ink >= INK).any(1).nonzero()[0], (ink >= INK).any(0).nonzero()[0]
        for _ in range(PLACES):
            left, top = draw.integer(0, width - side), draw.integer(0, height - side)
            box = [int(left + columns[0]), int(top + rows[0]), int(left + columns[-1] + 1), int(top + rows[-1] + 1)]
            if all(intersection_over_smaller(box, other) <= OVERLAP for other in found):
                part = pixels[top : top + side, left : left + side]
                part += ((level - part).astype(np.int32) * ink // 255).astype(np.int16)
                found.append([*box, scan, side, left, top])
                break
    return pixels.clip(0, 255).astype(np.uint8), found


def intersection_over_smaller(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of the smaller box, xyxy, that lies in the other one."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(0, width) * max(0, height) / min(areas)


@functools.lru_cache(maxsize=8)
def scenes(part: str, count: int, options: DigitScenesOptions) -> Scenes:
    """The scenes of one part, which hold this part's scans and no others."""
    pool, labels = parted()[part], np.array(scans()[1])
    made = [scene(Draw("scene", options.scene_seed, part, i), pool, options) for i in range(count)]
    rows = np.array([row for _, found in made for row in found], np.int32).reshape(-1, 8)
    pasted = rows[:, 4:]
    area = [float((enlarged(scan, side) >= INK).sum()) for scan, side in pasted[:, :2].tolist()]
    return Scenes(
        sizes=np.tile(np.array(options.canvas), (count, 1)),
        offsets=np.cumsum([0, *(len(found) for _, found in made)]),
        boxes=rows[:, :4].astype(np.float32),
        classes=labels[pasted[:, 0]],
        crowd=np.zeros(len(rows), bool),
        area=np.array(area, np.float32),
        part=part,
        pixels=np.stack([pixels for pixels, _ in made]),
        pasted=pasted,
    )


def cached(part: str, count: int, options: DigitScenesOptions, folder: Path) -> Scenes:
    """The same from a file in `folder`; one that is damaged, or of other scenes, is made anew."""
    path = folder / f"{part}.npz"
    key = repr((VERSION, part, count, options.canvas, options.num_digits, options.digit_size, options.scene_seed))
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "key"}
            if str(file["key"]) == key + _digest(arrays):
                return Scenes(part=part, **arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        pass
    made = scenes(part, count, options)
    arrays = {name: value for name, value in vars(made).items() if isinstance(value, np.ndarray)}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part_path, part_path.open("wb") as file:
        np.savez_compressed(file, key=np.array(key + _digest(arrays)), **arrays)
    return made


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(repr((name, arrays[name].dtype.str, arrays[name].shape)).encode() + arrays[name].tobytes())
    return digest.hexdigest()


class DigitScenes(DetectionDataModule):
    """Ten classes; the scans of the three parts are those of the data set `digits`. The run's seed changes no scene.

    A mask is the pixels of a digit's ink, also where another digit covers them, and a box is tight around it.
    """

    def __init__(self, options: DigitScenesOptions, **settings: Any):
        key = DigitScenesOptions(
            image_size=options.canvas,
            num_digits=options.num_digits,
            digit_size=options.digit_size,
            scene_seed=options.scene_seed,
        )
        make = scenes if options.cache is None else functools.partial(cached, folder=Path(options.cache))
        parts = {part: make(part, getattr(options, f"{part}_scenes"), key) for part in ("train", "val", "test")}
        super().__init__(options, parts, [str(digit) for digit in range(10)], **settings)
