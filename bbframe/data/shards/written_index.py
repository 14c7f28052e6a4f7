"""The index of a part, put together from what was noted while its shards were written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.boxes.objects import Objects, Rows, rows_of
from bbframe.data.shards.shard_index import ShardIndex, packed_rows
from bbframe.data.shards.shard_samples import SampleNote, SampleSource
from bbframe.files import atomic
from bbframe.imaging.decode import AS_USUAL


def noted(samples: list[tuple[int, SampleNote]]) -> dict[str, np.ndarray]:
    """What an index needs of a shard's samples, each with the place of its image."""
    masks = packed_rows(mask for _, sample in samples for mask in sample.masks)
    return {
        "rows": np.array([(at, one.length, *one.size) for at, one in samples], np.int64).reshape(-1, 4),
        "digests": np.array([one.digest for _, one in samples], np.uint64),
        "masks": masks.values,
        "mask_offsets": masks.offsets,
    }


def write_index(
    data: Any,
    out: Path,
    part: str,
    plan: list[np.ndarray],
    source: SampleSource,
    sides: list[dict[str, np.ndarray]],
    shards: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write the index of a part, whose `shards` hold the images of `plan`; returns its entry in the set's file.

    `sides` are what was `noted` of each shard.
    """
    order = np.concatenate(plan)
    back = np.argsort(order)
    rows = np.concatenate([side["rows"] for side in sides])[back]
    index = ShardIndex(
        shard=np.repeat(np.arange(len(plan), dtype=np.int32), [len(which) for which in plan])[back],
        offset=rows[:, 0],
        size=rows[:, 1],
        names=packed_rows(name.encode() for name in source.names),
        digests=np.concatenate([side["digests"] for side in sides])[back],
        sizes=rows[:, 2:].astype(np.int32),
        **_shown(source),
    )
    if source.ids is not None and all(type(one) is int for one in source.ids):
        index.ids = np.array(source.ids, np.int64)
    elif source.ids is not None:
        index.texts = packed_rows(str(one).encode() for one in source.ids)
    if source.masks and index.object_offsets is not None:
        lengths = np.concatenate([np.diff(side["mask_offsets"]) for side in sides])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        written = Rows(np.concatenate([side["masks"] for side in sides]), offsets)
        index.masks = written.select(np.argsort(rows_of(index.object_offsets, order)[0]))
    content = index.to_bytes()
    with atomic(out / f"{part}.npz") as path:
        path.write_bytes(content)
    told = {"file": f"{part}.npz", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    entry: dict[str, Any] = {"index": told, "shards": shards}
    if hasattr(data, "part_category_ids"):
        entry["category_ids"] = plain_numbers(data.part_category_ids(part))
    entry["as_stored"] = getattr(source.images, "decoding", AS_USUAL).as_stored
    return entry


def plain_numbers(ids: Any) -> tuple[int, ...] | None:
    """Ids of classes as integers that JSON can hold."""
    return None if ids is None else tuple(int(one) for one in ids)


def _shown(source: SampleSource) -> dict[str, Any]:
    """The labels of a part, or its objects, as an index holds them."""
    images = source.images
    if not hasattr(images, "target"):
        return {"labels": np.array(images.labels, np.int64)}
    if isinstance(images, Objects):
        found = {key: getattr(images, key) for key in ("boxes", "classes", "crowd", "area")}
        return {**found, "object_offsets": images.offsets.astype(np.int64)}
    targets = [images.target(index, False) for index in range(len(images.labels))]
    names = {"boxes": "boxes", "labels": "classes", "crowd": "crowd", "area": "area"}
    found = {name: np.concatenate([target[key].numpy() for target in targets]) for key, name in names.items()}
    return {**found, "object_offsets": np.cumsum([0, *(len(target["boxes"]) for target in targets)])}
