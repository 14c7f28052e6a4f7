"""Batches of images that have a class each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbframe.data.batch_loader import Batch, Batches
from bbframe.data.batch_order import Key
from bbframe.data.seeds import derive, torch_seed
from bbframe.imaging.image_fit import normalise


@dataclass(eq=False)
class ImageBatches(Batches):
    """Batches of `image` (B, C, H, W) float and `label` (B,) long, or (B, num_classes) probabilities when mixed."""

    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    undecoded: bool = False  # whether the transform takes a JpegFile, of images that have a method for it

    def load(self, index: int) -> Any:
        find = getattr(self.images, "plain_jpeg", None) if self.undecoded else None
        jpeg = find(index) if find is not None else None
        return self.images.read(index) if jpeg is None else jpeg

    def collate(self, found: list[Tensor], index: list[int], key: Key) -> Batch:
        pixels = _stacked(found)
        batch = {"image": pixels, "label": torch.tensor([self.images.labels[i] for i in index]), "key": key}
        return self._finish(batch) if self.finish_early else batch

    def unpack(self, batch: Batch) -> Batch:
        # bytes come from a worker in a quarter of the time of floats; with a GPU the workers finish batches, so that
        # what is pinned is finished
        return self._finish(batch) if "key" in batch else batch

    def _finish(self, batch: Batch) -> Batch:
        key = batch.pop("key")
        batch["image"] = normalise(batch["image"], self.mean, self.std)
        if self.mix is not None:
            with torch_seed(derive(self.train_seed, "mix", *key)):
                batch["image"], batch["label"] = self.mix(batch["image"], batch["label"])
        return batch


def _stacked(found: list[Tensor]) -> Tensor:
    """(C, H, W) each -> (B, C, H, W) in the order in which most lie in memory: any other takes ten times as long."""
    if 2 * sum(x.is_contiguous() for x in found) > len(found):
        return torch.stack(found)
    return torch.stack([x.permute(1, 2, 0) for x in found]).permute(0, 3, 1, 2)
