"""Write the images of a data module into tars, a whole set or none; the same images give the same bytes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bbframe.data.boxes.objects import Objects, Rows, flat_labels, rows_of
from bbframe.data.data_module import DataModule
from bbframe.data.exclusion import image_name
from bbframe.data.seeds import derive
from bbframe.data.shards.set_file import SET_FILE, UNFINISHED, SetFile
from bbframe.data.shards.shard_index import OWN, ShardIndex, packed
from bbframe.data.shards.shard_samples import SampleSource, tar_member
from bbframe.files import atomic, encodable, remove_parts, write_text
from bbframe.imaging.decode import AS_USUAL

MOST_ASSUMED = 1000  # names of a kind that are kept
_ABOUT_JSON = 3 * OWN  # two headers and a short JSON

Tell = Callable[[int, int], None]


@dataclass
class ShardJob:
    """What every process that writes needs: the sources, the folder, and the id of the set."""

    sources: dict[str, SampleSource]
    out: Path
    owner: str


def write_shards(
    data: DataModule,
    kind: str,
    out: Path,
    *,
    masks: bool = False,
    shard_bytes: int = 256 * 10**6,
    seed: int = 0,
    workers: int = 1,
    tell: Tell = lambda done, of: None,
) -> SetFile:
    """Write all parts of a data set called `kind` into the folder `out`, tars of about `shard_bytes` each.

    The training images are mixed once, by `seed`, so that a few shards show all classes; an index keeps the order of
    the source. A folder in which the same call was interrupted is completed. Raises ValueError for a folder that holds
    anything else, and for an image that cannot be read.
    """
    sources = {part: _source(data, part, masks) for part in data.parts}
    facts = {part: _glimpses(source) for part, source in sources.items()}
    owner = _identity(data, kind, sources, facts, (shard_bytes, seed, masks))
    _claim(out, owner)
    plans = {part: _divided(facts[part][:, 0], shard_bytes, seed if part == "train" else None) for part in sources}
    names = {part: [f"{part}-{number:06d}.tar" for number in range(len(plan))] for part, plan in plans.items()}
    work = [(part, name, which) for part in plans for name, which in zip(names[part], plans[part], strict=True)]
    total, done = sum(data.counts.values()), 0
    for count in _write_all(ShardJob(sources, out, owner), work, workers):
        done += count
        tell(done, total)
    entries = {part: _finish_part(data, out, part, names[part], plans[part], sources[part]) for part in sources}
    found = SetFile(
        id=owner,
        kind=kind,
        task=data.options.task,
        class_names=tuple(data.class_names),
        category_ids=_numbers(getattr(data, "category_ids", None)),
        bits=getattr(data.options, "bits", None),
        masks=masks,
        assumed={what: [*names][:MOST_ASSUMED] for what, names in data.assumed.items()},
        parts=entries,
    )
    write_text(out / SET_FILE, found.to_text())
    for path in [out / UNFINISHED, *out.glob(".*.npz")]:
        path.unlink()
    return found


def _source(data: Any, part: str, masks: bool) -> SampleSource:
    images = data.parts[part]
    count = data.counts[part]
    root = f"{getattr(images, 'root', '')}{os.sep}"
    names = [encodable(image_name(images, i)).removeprefix(root) for i in range(count)]
    ids = [data.image_id(part, i) for i in range(count)] if hasattr(data, "image_id") else None
    if ids == list(range(count)):
        ids = None
    return SampleSource(images, names, list(data.class_names), masks, ids)


def _glimpses(source: SampleSource) -> np.ndarray:
    """The size and the checksum of each image file: (images, 2)."""
    try:
        return np.array([source.glimpse(index) for index in range(len(source.names))], np.int64).reshape(-1, 2)
    except OSError as error:
        raise ValueError(f"data: cannot read {error.filename}: {(error.strerror or str(error)).lower()}") from error


def _identity(
    data: DataModule, kind: str, sources: dict[str, SampleSource], facts: dict[str, np.ndarray], how: tuple[Any, ...]
) -> str:
    """What a set is called, by its images and by how it is written."""
    digest = hashlib.sha256(repr((kind, data.class_names, getattr(data, "category_ids", None), how)).encode())
    for part, source in sources.items():
        digest.update(f"{part} {len(source.names)} {source.ids}".encode(errors="backslashreplace"))
        digest.update("\n".join(source.names).encode() + flat_labels(source.images).tobytes() + facts[part].tobytes())
        if isinstance(images := source.images, Objects):
            digest.update(images.boxes.tobytes() + images.offsets.tobytes() + images.crowd.tobytes())
    return digest.hexdigest()[:16]


def _claim(out: Path, owner: str) -> None:
    """Make the folder of a set, or go on in the one that was left."""
    if (out / SET_FILE).exists():
        raise ValueError(f"--out {out}: holds a set of shards already; remove it, or give another name")
    mark = out / UNFINISHED
    if mark.is_file():
        try:
            left = json.loads(mark.read_bytes())["id"]
        except (ValueError, KeyError, TypeError):
            left = None
        if left != owner:
            raise ValueError(f"--out {out}: holds the beginning of a set of other images; remove it")
        remove_parts(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there already; give the name of a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, json.dumps({"id": owner}))


def _divided(sizes: np.ndarray, shard_bytes: int, seed: int | None) -> list[np.ndarray]:
    """The images of each shard: of about `shard_bytes`, one at least; mixed by a seed, None: in their order."""
    order = np.arange(len(sizes))
    if seed is not None:
        order = np.argsort(np.random.PCG64(derive("shards", seed)).random_raw(len(sizes)), kind="stable")
    ends = np.cumsum(-(-sizes[order] // OWN) * OWN + _ABOUT_JSON)
    shards = (ends - 1) // max(1, shard_bytes)
    return [group for group in np.split(order, np.flatnonzero(np.diff(shards)) + 1) if len(group)]


_job: ShardJob | None = None


def _start(job: ShardJob) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it


def _write_all(job: ShardJob, work: list[tuple[str, str, np.ndarray]], workers: int) -> Any:
    """Write the shards that are not there; gives the number of images of each that is."""
    left = []
    for part, name, which in work:
        if (job.out / name).is_file() and _sidecar(job.out, name).is_file():
            yield len(which)
        else:
            left.append((part, name, which))
    if workers == 1 or len(left) < 2:
        for part, name, which in left:
            write_shard(job, part, name, which)
            yield len(which)
        return
    way = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job,)) as pool:
        waiting: dict[Future[None], int] = {}
        try:
            for part, name, which in left:
                waiting[pool.submit(_write_here, part, name, which)] = len(which)
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield waiting.pop(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_here(part: str, name: str, which: np.ndarray) -> None:
    assert _job is not None
    write_shard(_job, part, name, which)


def _sidecar(out: Path, name: str) -> Path:
    return out / f".{name}.npz"


def write_shard(job: ShardJob, part: str, name: str, which: np.ndarray) -> None:
    """Write one tar, and beside it what an index needs of it."""
    source, position = job.sources[part], 0
    rows: list[tuple[int, int, int, int]] = []
    digests, masks = [], []
    whole = hashlib.sha256()
    with atomic(job.out / name) as path, path.open("wb") as file:

        def put(content: bytes) -> None:
            nonlocal position
            file.write(content)
            whole.update(content)
            position += len(content)

        for index in which.tolist():
            sample = source.sample(index)
            rows.append((position + OWN, len(sample.image), *sample.size))
            digests.append(sample.digest)
            masks += sample.masks
            put(tar_member(f"{index:09d}{sample.suffix}", sample.image, job.owner))
            put(tar_member(f"{index:09d}.json", sample.json(), job.owner))
        put(bytes(2 * OWN))
    texts = packed(masks)
    with atomic(_sidecar(job.out, name)) as path, path.open("wb") as file:
        np.savez(
            file,
            rows=np.array(rows, np.int64).reshape(-1, 4),
            digests=np.array(digests, np.uint64),
            masks=texts.values,
            mask_offsets=texts.offsets,
            sha256=np.array(whole.hexdigest()),
        )


def _finish_part(
    data: Any, out: Path, part: str, names: list[str], plan: list[np.ndarray], source: SampleSource
) -> dict[str, Any]:
    """Write the index of a part from what lies beside its tars; returns its entry in the set's file."""
    sides = []
    for name in names:
        with np.load(_sidecar(out, name), allow_pickle=False) as file:
            sides.append({key: file[key] for key in file.files})
    order = np.concatenate(plan)
    back = np.argsort(order)
    rows = np.concatenate([side["rows"] for side in sides])[back]
    index = ShardIndex(
        shard=np.repeat(np.arange(len(plan), dtype=np.int32), [len(which) for which in plan])[back],
        offset=rows[:, 0],
        size=rows[:, 1],
        names=packed(name.encode() for name in source.names),
        digests=np.concatenate([side["digests"] for side in sides])[back],
        sizes=rows[:, 2:].astype(np.int32),
        **_shown(source),
    )
    if source.ids is not None and all(type(one) is int for one in source.ids):
        index.ids = np.array(source.ids, np.int64)
    elif source.ids is not None:
        index.texts = packed(str(one).encode() for one in source.ids)
    if source.masks and index.object_offsets is not None:
        lengths = np.concatenate([np.diff(side["mask_offsets"]) for side in sides])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        written = Rows(np.concatenate([side["masks"] for side in sides]), offsets)
        index.masks = written.select(np.argsort(rows_of(index.object_offsets, order)[0]))
    content = index.to_bytes()
    with atomic(out / f"{part}.npz") as path:
        path.write_bytes(content)
    shards = [
        {"file": name, "bytes": (out / name).stat().st_size, "sha256": str(side["sha256"]), "images": len(which)}
        for name, side, which in zip(names, sides, plan, strict=True)
    ]
    told = {"file": f"{part}.npz", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    entry: dict[str, Any] = {"index": told, "shards": shards}
    if hasattr(data, "part_category_ids"):
        entry["category_ids"] = _numbers(data.part_category_ids(part))
    entry["as_stored"] = getattr(source.images, "decoding", AS_USUAL).as_stored
    return entry


def _numbers(ids: Any) -> tuple[int, ...] | None:
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
