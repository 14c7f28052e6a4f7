"""What data sets for detection add: images that differ in size, and a target for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bbframe.data.batch_loader import Batch, Batches, Images, Key
from bbframe.data.boxes.box_options import DetectionDataOptions
from bbframe.data.boxes.box_transforms import Sample, eval_boxes, select, train_boxes
from bbframe.data.data_module import DataModule
from bbframe.data.seeds import derive
from bbframe.imaging.image_fit import normalise


class Annotated(Images, Protocol):
    """The images of one part, and the objects in them."""

    def target(self, index: int, masks: bool) -> dict[str, Tensor]:
        """An image's objects, in pixels of the image that `read` gives.

        `boxes` (N, 4) float xyxy, `labels` (N,) long, `crowd` (N,) bool, `area` (N,) float, `size` (height, width)
        and, if asked for, `masks` (N, H, W) uint8.
        """


@dataclass(eq=False)
class TargetBatches(Batches):
    """Batches of `image`, a list of (C, H, W) float, and `target`, a list of dicts. Training sees no crowds."""

    images: Annotated
    masks: bool = False

    def load(self, index: int) -> Sample:
        sample: Sample = {**self.images.target(index, self.masks), "image": self.images.read(index)}
        return sample if self.train_seed is None else select(sample, ~sample["crowd"])

    def collate(self, found: list[Sample], index: list[int], key: Key) -> Batch:
        images = [normalise(sample.pop("image"), self.mean, self.std) for sample in found]
        # each tensor of a worker occupies an open file, of which a process has few: arrays take none
        targets = [{k: v if k == "masks" else v.numpy() for k, v in sample.items()} for sample in found]
        if self.train_seed is not None:
            for target, place in zip(targets, index, strict=True):
                target["seed"] = np.array(derive(self.train_seed, key[0], place, "boxes"))
        return {"image": images, "target": targets}

    def unpack(self, batch: Batch) -> Batch:
        for target in batch["target"]:
            target.update({k: torch.from_numpy(v) for k, v in target.items() if isinstance(v, np.ndarray)})
        return batch


class DetectionDataModule(DataModule):
    """Batches {"image": list of (C, H, W) float, normalised, not padded; "target": list of dicts; "index": (B,) long}.

    A target has

    - `boxes` (N, 4) float xyxy in pixels of its image, where N may be 0;
    - `labels` (N,) long, and `area` (N,) float in pixels of the original image;
    - `crowd` (N,) bool: regions that an evaluation ignores and that training does not see;
    - `size` (2,) long: the original's height and width;
    - `scale` (2,) float: x and y were multiplied by it, so that an evaluation's boxes / scale are the original's;
    - in training, `seed` () long, a function of (seed, epoch, index), by which a head draws boxes of the image;
    - with `masks`, `masks` (N, H, W) uint8 in the pixels of a training image, or of the original in an evaluation.
    """

    parts: dict[str, Annotated]  # type: ignore[assignment]

    def __init__(
        self, options: DetectionDataOptions, *args: Any, num_channels: int, masks: bool = False, **settings: Any
    ):
        """As `DataModule`; with `masks` the targets hold masks."""
        super().__init__(options, *args, num_channels=num_channels, **settings)
        self.masks = masks
        self.category_ids = list(range(self.num_classes))  # what a file of annotations calls the classes

    def _make_transforms(self, num_channels: int) -> None:
        options: Any = self.options
        self._eval_transform = eval_boxes(options, self.preprocessing, num_channels)
        self._train_transform = train_boxes(options, self.preprocessing, num_channels)

    def picture(self, part: str, index: int) -> Tensor:
        """The image as an evaluation sees it, before normalisation: (C, H, W) uint8."""
        return self._eval_transform({"image": self.parts[part].read(index)})["image"]

    def target(self, part: str, index: int) -> dict[str, Tensor]:
        """What an evaluation compares with: boxes in pixels of `picture`, masks in those of the original image."""
        images = self.parts[part]
        sample = self._eval_transform({**images.target(index, self.masks), "image": images.read(index)})
        del sample["image"]
        return sample

    def image_id(self, part: str, index: int) -> int | str:
        """What a file of annotations calls the image."""
        return index

    def part_category_ids(self, part: str) -> list[int]:
        """What the annotations of a part call the classes."""
        return self.category_ids

    def _batches(self, part: str, train: bool) -> TargetBatches:
        return TargetBatches(self.parts[part], *self._processing(train), masks=self.masks)
