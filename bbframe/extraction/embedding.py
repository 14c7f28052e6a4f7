"""The features of image files by one network, and the files that other programs read them from."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbframe.backbone import Backbone
from bbframe.extraction.stage_pooling import MEAN, StagePooling
from bbframe.files import atomic, encodable
from bbframe.imaging.decode import AS_USUAL, Decoding, read_image, reason
from bbframe.schema import nearest

FORMATS = (".npy", ".parquet")


@dataclass
class Embedding:
    """Rows of features (n, C) float32, the `names` (n,) of their images, and {name: reason} of those left out."""

    features: np.ndarray
    names: list[str]
    skipped: dict[str, str]


class Embedder:
    """A network with one stage chosen: images -> vectors.

    `prepare` makes the network's input (C, H, W) of an image. `stage` is a selected stage's name or index, None the
    last one; `kind` is "mean" or "class_token". Raises ValueError for what the network does not have.
    """

    def __init__(
        self, net: Backbone, prepare: Callable[[Image.Image], Tensor], stage: str | None = None, kind: str = MEAN
    ) -> None:
        self.net, self.prepare = net.eval(), prepare
        self.pooling = StagePooling(net)
        stages = self.pooling.stages
        by_index = {str(index): name for name, index in self.pooling.places.items()}
        chosen = stages[-1] if stage is None else by_index.get(str(stage), str(stage))
        if chosen not in stages:
            raise ValueError(f"embed: stage={stage}: the network gives {', '.join(stages)}{nearest(chosen, stages)}")
        if (chosen, kind) not in self.pooling.keys:
            has = "mean or class_token" if self.pooling.with_tokens else "mean"
            raise ValueError(f"embed: kind={kind}: this network's images have {has}")
        self.key = (chosen, kind)

    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The features of images of any sizes: (n, C) float32."""
        inputs = [self.prepare(image) for image in images]
        rows: list[np.ndarray] = [np.empty(0)] * len(inputs)
        for shape in dict.fromkeys(x.shape for x in inputs):
            places = [i for i, x in enumerate(inputs) if x.shape == shape]
            batch = torch.stack([inputs[i] for i in places]).to(self.net.device, self.net.dtype)
            for i, row in zip(places, self.pooling.images(batch)[self.key].numpy(), strict=True):
                rows[i] = row
        return np.stack(rows)


def embed_files(
    embedder: Embedder,
    files: Sequence[tuple[str, Path]],
    batch_size: int,
    decoding: Decoding = AS_USUAL,
    advance: Callable[[int], None] = lambda count: None,
) -> Embedding:
    """The features of image files, given as (name, path). One that cannot be read is left out, and named.

    Raises ValueError when none can be read.
    """
    rows: list[np.ndarray] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    for batch in _batches(files, batch_size):
        images: list[Image.Image] = []
        for name, path in batch:
            try:
                images.append(read_image(path, decoding))
                names.append(name)
            except Exception as error:  # a decoder may raise anything on a broken file
                skipped[name] = reason(error)
        if images:
            rows.append(embedder(images))
        advance(len(batch))
    if not rows:
        name, why = next(iter(skipped.items()), ("", "there is no image"))
        raise ValueError(f"embed: none of {len(files)} images can be read; {name}: {why}")
    return Embedding(np.concatenate(rows), names, skipped)


def _batches(files: Sequence[tuple[str, Path]], size: int) -> Iterator[Sequence[tuple[str, Path]]]:
    yield from (files[start : start + size] for start in range(0, len(files), size))


def names_of(out: Path) -> Path:
    """The table that says which image each row of an .npy file is."""
    return out.with_name(f"{out.stem}_images.csv")


def check_format(out: Path) -> None:
    """Raise ValueError for a file that features are not written as, and for a format whose package is not there."""
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"embed: out={out} must end in {' or '.join(FORMATS)}")
    if out.suffix.lower() == ".parquet":
        _parquet()


def write_embedding(embedding: Embedding, out: Path) -> list[Path]:
    """Write features for other programs; returns the files.

    `x.npy` holds (n, C) float32, and `x_images.csv` the image of each row; `x.parquet` has the columns `image` and
    `features`, a list of C float32.
    """
    if out.suffix.lower() == ".npy":
        with atomic(out) as part, part.open("wb") as file:
            np.save(file, embedding.features)
        table = names_of(out)
        with atomic(table) as part, part.open("w", encoding="utf-8", newline="") as text:
            csv.writer(text, lineterminator="\n").writerows([["image"], *([encodable(x)] for x in embedding.names)])
        return [out, table]
    arrow, parquet = _parquet()
    flat = arrow.array(embedding.features.ravel())
    rows = arrow.FixedSizeListArray.from_arrays(flat, embedding.features.shape[1])
    images = arrow.array([encodable(name) for name in embedding.names])
    with atomic(out) as part:
        parquet.write_table(arrow.table({"image": images, "features": rows}), part)
    return [out]


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            "embed: Parquet needs a package that is not installed: pip install 'bbframe[parquet]', or give out=x.npy"
        ) from error
    return pyarrow, pyarrow.parquet
