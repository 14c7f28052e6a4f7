"""What a backbone makes of images, as one row an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bbframe.backbone import Backbone
from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.data.data_module import DataModule, ImageDataModule
from bbframe.extraction.feature_set import ImageChoice, extract, store_of
from bbframe.extraction.feature_store import features_root
from bbframe.extraction.stage_pooling import StagePooling
from bbframe.imaging.image_fit import normalise

BATCH = 32  # images of one size that go through the network together


@torch.inference_mode()
def image_features(net: Backbone, data: DataModule, part: str, indices: Sequence[int] | None = None) -> np.ndarray:
    """The map of the last selected stage, its mean over space, of images of a part: (n, C) float32.

    Images are seen as in an evaluation. `indices` are those of the images, all of them unless said. Features of
    labelled images are those of `bbframe rank`: they are kept on disk and computed once. The network is left in
    evaluation mode, on the device that it is on. Raises ValueError for an image that cannot be read.
    """
    net.eval()
    if isinstance(data, ImageDataModule):
        pooling = StagePooling(net)
        choice = ImageChoice.of(data, part, range(data.counts[part]) if indices is None else [int(i) for i in indices])
        found = extract(pooling, data, choice, store_of(pooling, data, features_root()))
        if len(found.images) < (data.counts[part] if indices is None else len(indices)):
            raise ValueError(f"data: some {part} images cannot be read")
        return found.array(pooling.stages[-1])
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    chosen = range(data.counts[part]) if indices is None else indices
    rows = np.zeros((len(chosen), net.channels[-1]), np.float32)
    start = 0
    for batch in _batches(data, part, chosen):
        maps = net(batch.to(device)).feature_maps
        rows[start : start + len(batch)] = maps[-1].float().mean((2, 3)).cpu().numpy()
        start += len(batch)
    return rows


def _batches(data: DataModule, part: str, indices: Sequence[int]) -> Iterator[Tensor]:
    """Normalised images (B, C, H, W), those of one size that follow each other together."""
    assert isinstance(data, DetectionDataModule)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    held: list[Tensor] = []
    for index in indices:
        image = normalise(data.picture(part, int(index)), mean, std)
        if held and (held[0].shape != image.shape or len(held) == BATCH):
            yield torch.stack(held)
            held = []
        held.append(image)
    if held:
        yield torch.stack(held)
