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

from bbframe.data.boxes.objects import Objects, flat_labels
from bbframe.data.data_module import DataModule
from bbframe.data.exclusion import image_name
from bbframe.data.seeds import derive
from bbframe.data.shards.set_file import SET_FILE, UNFINISHED, SetFile
from bbframe.data.shards.shard_index import OWN
from bbframe.data.shards.shard_samples import SampleNote, SampleSource, tar_member
from bbframe.data.shards.written_index import noted, plain_numbers, write_index
from bbframe.files import atomic, encodable, remove_parts, write_text

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
    owner, sources, facts = begin_set(data, kind, out, (shard_bytes, seed), masks)
    plans = {}
    for part, found_facts in facts.items():
        plans[part] = _divided(found_facts[:, 0], shard_bytes, mixed_order(len(found_facts), part, seed))
    names = {part: [f"{part}-{number:06d}.tar" for number in range(len(plan))] for part, plan in plans.items()}
    work = [(part, name, which) for part in plans for name, which in zip(names[part], plans[part], strict=True)]
    total, done = sum(data.counts.values()), 0
    for count in _write_all(ShardJob(sources, out, owner), work, workers):
        done += count
        tell(done, total)
    entries = {}
    for part, source in sources.items():
        sides = [_noted_beside(out, name) for name in names[part]]
        shards = [
            {"file": name, "bytes": (out / name).stat().st_size, "sha256": str(side["sha256"]), "images": len(which)}
            for name, side, which in zip(names[part], sides, plans[part], strict=True)
        ]
        entries[part] = write_index(data, out, part, plans[part], source, sides, shards)
    found = finish_set(data, kind, out, owner, entries, masks)
    for path in out.glob(".*.npz"):
        path.unlink()
    return found


def finish_set(
    data: DataModule,
    kind: str,
    out: Path,
    owner: str,
    entries: dict[str, Any],
    masks: bool,
    format: str = "webdataset",
) -> SetFile:
    """Write the file that makes a folder a set."""
    found = SetFile(
        format=format,  # type: ignore[arg-type]
        id=owner,
        kind=kind,
        task=data.options.task,  # type: ignore[arg-type]
        class_names=tuple(data.class_names),
        category_ids=plain_numbers(getattr(data, "category_ids", None)),
        bits=getattr(data.options, "bits", None),
        masks=masks,
        assumed={what: [*names][:MOST_ASSUMED] for what, names in data.assumed.items()},
        parts=entries,
    )
    write_text(out / SET_FILE, found.to_text())
    (out / UNFINISHED).unlink()
    return found


def begin_set(
    data: DataModule, kind: str, out: Path, how: tuple[Any, ...], masks: bool
) -> tuple[str, dict[str, SampleSource], dict[str, np.ndarray]]:
    """Claim the folder of a set; returns its id, the samples of each part, and sizes with checksums of their files.

    Raises ValueError for a folder that holds anything but the beginning of the same set.
    """
    sources = {part: _source(data, part, masks) for part in data.parts}
    facts = {part: _glimpses(source) for part, source in sources.items()}
    owner = _identity(data, kind, sources, facts, (*how, masks))
    _claim(out, owner)
    return owner, sources, facts


def mixed_order(count: int, part: str, seed: int) -> np.ndarray:
    """The order in which a part is written: training images are mixed by a seed, the others keep their order."""
    if part != "train":
        return np.arange(count)
    return np.argsort(np.random.PCG64(derive("shards", seed)).random_raw(count), kind="stable")


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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be made: {error.strerror}") from error
    write_text(mark, json.dumps({"id": owner}))


def _divided(sizes: np.ndarray, shard_bytes: int, order: np.ndarray) -> list[np.ndarray]:
    """The images of each shard in the order given: of about `shard_bytes`, one at least."""
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
    notes: list[tuple[int, SampleNote]] = []
    whole = hashlib.sha256()
    with atomic(job.out / name) as path, path.open("wb") as file:

        def put(content: bytes) -> None:
            nonlocal position
            file.write(content)
            whole.update(content)
            position += len(content)

        for index in which.tolist():
            sample = source.sample(index)
            notes.append((position + OWN, sample.note()))
            put(tar_member(f"{index:09d}{sample.suffix}", sample.image, job.owner))
            put(tar_member(f"{index:09d}.json", sample.json(), job.owner))
        put(bytes(2 * OWN))
    with atomic(_sidecar(job.out, name)) as path, path.open("wb") as file:
        np.savez(file, sha256=np.array(whole.hexdigest()), **noted(notes))  # type: ignore[arg-type]


def _noted_beside(out: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(_sidecar(out, name), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
