"""`bbframe.features`: images as vectors, for a search, a cluster analysis or another program."""

from __future__ import annotations

from typing import Any

import numpy as np

from bbframe.backbone import Backbone
from bbframe.extraction.embedding import Embedder
from bbframe.imaging.decode import AS_USUAL
from bbframe.imaging.image_input import as_pictures
from bbframe.schema import whole_number


def features(
    network: Any, images: Any, *, stage: str | int | None = None, kind: str = "mean", batch_size: int = 32
) -> np.ndarray:
    """The features of images, (N, C) float32, or (C,) for a single image.

    `network` is a backbone or what `bbframe.load` returns; `images` are those of `Preprocessing.__call__`. `stage` is
    one of the selected maps, by name or index, None the last; `kind` is its "mean" over all places, or "class_token"
    where the network has one. The mode of the network, training or evaluation, is as before afterwards. Raises
    ValueError for what is no image, and for a stage or kind that the network does not have.
    """
    backbone = getattr(network, "backbone", network)
    if not isinstance(backbone, Backbone):
        raise ValueError(
            f"features: a {type(network).__name__} has no backbone of bbframe; give AutoBackbone.from_pretrained(...) "
            "or what bbframe.load makes of a run or a saved folder"
        )
    batch_size = whole_number("batch_size", batch_size)
    pictures, single = as_pictures(images, getattr(network, "decoding", AS_USUAL))
    if not pictures:
        raise ValueError("features: there is no image")
    training = backbone.training
    try:
        embedder = Embedder(backbone, network.preprocessing.prepared, None if stage is None else str(stage), kind)
        parts = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
        rows = np.concatenate([embedder(part) for part in parts])
    finally:
        backbone.train(training)
    return rows[0] if single else rows
