"""Batches that depend on nothing but (seed, epoch, index): the same with any number of workers, and after a resume."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from bbframe.data.batch_order import STAND_IN, EvalOrder, Key, TrainOrder
from bbframe.data.faults import Skipped
from bbframe.data.seeds import derive, torch_seed
from bbframe.imaging.decode import reason
from bbframe.imaging.jpeg_file import UndecodedError

Batch = dict[str, Any]


class Images(Protocol):
    """The images of one part, training, validation or test, and what they show."""

    @property
    def labels(self) -> Sequence[Any]:
        """The class of each image, or the classes of its objects."""

    def read(self, index: int) -> Image.Image:
        """The image in mode L or RGB, upright. Raises whatever its decoder raises on a broken file."""

    def name(self, index: int) -> str:
        """What an error message calls the image, such as its path."""

    # Images in files may also have plain_jpeg(index) -> JpegFile | None, see `bbframe.imaging.jpeg_file.plain_jpeg`:
    # what `read` gives, decoded faster for training.


@dataclass(eq=False)
class Batches(Dataset[Batch]):
    """Whole batches by their keys: read and transform, then put together with `index` (B,) long, places in the part.

    `mean` and `std` (C,) belong to pixels in 0..1; `train_seed` is None for an evaluation. `errors` in a batch lists
    the (name, reason) of images that could not be read or transformed, and `assumed` the (what, name) of assumptions.
    A training batch takes the next readable image in their place, so that its size holds; an evaluation leaves them
    out, so that none counts twice. One of several processes then gets, where nothing is left, a batch of one image
    with `stand_in`, which no result may count: it keeps step with the other processes.
    """

    images: Images
    transform: Callable[[Any], Any]
    mean: Tensor
    std: Tensor
    train_seed: int | None = None

    finish_early = False  # whether workers normalise and mix; the process that trains decides
    most_errors = 0  # unreadable images that a batch looks past; the loader decides
    in_step = False  # whether other processes wait for every batch; the loader decides

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitems__(self, keys: list[Key]) -> Batch:
        errors: list[tuple[str, str]] = []
        assumed: list[tuple[str, str]] = []
        counted = [key for key in keys if key[0] != STAND_IN]
        found = [item for key in counted if (item := self._item(key, errors, assumed)) is not None]
        stand_in = not found and self.in_step and len(errors) <= self.most_errors
        if stand_in:
            found = self._stand_in(keys[0][1])
        more: Batch = {"errors": errors, "assumed": assumed}
        if not found:
            return more
        index = [i for _, i in found]
        batch = self.collate([x for x, _ in found], index, keys[0])
        return {**batch, "index": torch.tensor(index), **more, **({"stand_in": True} if stand_in else {})}

    def _stand_in(self, first: int) -> list[tuple[Any, int]]:
        """The first image from index `first` on that can be read; what cannot be is told where it counts."""
        for step in range(len(self)):
            if (item := self._item((0, (first + step) % len(self)), [], [])) is not None:
                return [item]
        return []

    def load(self, index: int) -> Any:
        """What the transform takes of an image. Raises whatever its decoder raises."""
        return self.images.read(index)

    def collate(self, found: list[Any], index: list[int], key: Key) -> Batch:
        """A batch of what the transform gave; `key` belongs to the first image."""
        raise NotImplementedError

    def unpack(self, batch: Batch) -> Batch:
        """Finish a worker's batch in the process that trains."""
        return batch

    def _item(self, key: Key, errors: list[tuple[str, str]], assumed: list[tuple[str, str]]) -> tuple[Any, int] | None:
        """The transformed image and its index, or None when no image can be read."""
        epoch, first = key
        for step in range(1 if self.train_seed is None else len(self)):
            if len(errors) > self.most_errors:
                return None
            index = (first + step) % len(self)
            loaded = False
            try:
                item = self.load(index)
                loaded = True
                try:
                    made = self._transformed(item, epoch, index)
                except UndecodedError:
                    loaded = False
                    item = self.images.read(index)
                    loaded = True
                    made = self._transformed(item, epoch, index)
                pixels = item["image"] if isinstance(item, dict) else item
                told = getattr(pixels, "info", {}).get("assumed", ())
            except Exception as error:  # a decoder may raise anything on a broken file, a transform on any
                why = reason(error)
                errors.append((self.images.name(index), f"a transform failed: {why}" if loaded else why))
                continue
            assumed += [(what, self.images.name(index)) for what in told]
            return made, index
        return None

    def _transformed(self, item: Any, epoch: int, index: int) -> Any:
        """What the transform makes of an image, by the random numbers that belong to it."""
        if self.train_seed is None:
            return self.transform(item)
        with torch_seed(derive(self.train_seed, epoch, index)):
            return self.transform(item)


class BatchLoader:
    """Iterates over a part's batches with a DataLoader inside.

    It is not a DataLoader itself, because Lightning would put its own sampler into it, call set_epoch, and warn about
    the number of workers. Raises ValueError when a worker hangs, and when more images are unreadable than allowed.
    """

    def __init__(
        self,
        batches: Batches,
        order: TrainOrder | EvalOrder,
        skipped: Skipped,
        num_workers: int,
        timeout: int,
        in_step: bool = False,
    ):
        self.dataset, self.order, self.skipped = batches, order, skipped
        batches.most_errors, batches.in_step = skipped.most, in_step
        self.num_workers, self.timeout = num_workers, timeout
        self._loader: DataLoader[Batch] | None = None
        self._hung = False

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        empty = True
        try:
            for batch in self._in_time(self._inner()):
                self.skipped.assume(batch.pop("assumed"))
                if errors := batch.pop("errors"):
                    self.skipped.note(errors)
                if batch:
                    empty = False
                    yield self.dataset.unpack(batch)
            if empty:
                raise ValueError(f"data: none of {len(self.dataset)} images can be read")
        except Exception as error:
            self.close(kill=True)
            if not (self._hung or "DataLoader timed out" in str(error)):
                raise
            raise ValueError(
                f"data: {self.num_workers} workers gave no batch for {self.timeout} s; a slow disk needs a larger "
                "data.timeout, and data.num_workers=0 shows where a hung one hangs"
            ) from error

    def _in_time(self, loader: DataLoader[Batch]) -> Iterator[Batch]:
        """The batches; workers are killed when one is late, because torch waits for ever for a tensor half sent."""
        batches = iter(loader)
        while True:
            timer = threading.Timer(self.timeout + 1, self._kill_workers, [batches])
            timer.daemon = True
            if self.num_workers:
                timer.start()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                timer.cancel()
            yield batch

    def _kill_workers(self, batches: Any) -> None:
        self._hung = True
        for worker in batches._workers:
            worker.kill()

    def _inner(self) -> DataLoader[Batch]:
        if self._loader is None:
            # asked here, because a worker forked from a process that uses its GPU sees none
            gpu = torch.cuda.is_available()
            self.dataset.finish_early = gpu
            ahead: Callable[[Any], Any] = getattr(self.dataset.images, "fetching_ahead", _unchanged)
            self._loader = DataLoader(
                self.dataset,
                batch_sampler=ahead(self.order),
                collate_fn=_unchanged,
                num_workers=self.num_workers,
                multiprocessing_context=_start_method() if self.num_workers else None,
                timeout=self.timeout if self.num_workers else 0,
                persistent_workers=self.num_workers > 0,
                pin_memory=gpu,
                worker_init_fn=_begin_worker,
                generator=torch.Generator(),  # without one, each epoch would draw from the training's random numbers
            )
        return self._loader

    def close(self, kill: bool = False) -> None:
        """End the workers now, not at garbage collection; a new iteration starts new ones.

        After a failure `kill` them: one that hangs or was stopped obeys nothing else, and asking it would hang too.
        """
        workers = getattr(self._loader, "_iterator", None)
        if workers is not None and kill:
            signal_handling._remove_worker_pids(id(workers))  # torch would raise an error over their end
            workers._shutdown, workers._worker_pids_set = True, False
            for worker in workers._workers:
                worker.kill()
                worker.join()
        elif workers is not None:
            workers._shutdown_workers()
        self._loader = None


def _start_method() -> str | None:
    """How workers are started, None for Python's own choice; joblib's processes have a way that torch cannot use."""
    method = multiprocessing.get_start_method(allow_none=True)
    if method in (None, "fork", "spawn", "forkserver"):
        return None
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def _begin_worker(worker: int) -> None:
    """Let the process that trains decide what a signal to all processes, such as Ctrl-C, means.

    Its garbage collector leaves alone what a worker has inherited: to visit an object is to write to it, and a page
    that is written to is shared no longer. It would cost each worker more than 100 MB, sooner or later.
    """
    gc.freeze()
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


class TrainLoader(BatchLoader):
    """The training batches. Each iteration goes on after the last batch handed out.

    `done` counts the batches handed out since the training began, however many the workers have read ahead. It alone
    decides what comes next, because Lightning's own count of epochs errs after some kinds of resume.
    """

    order: TrainOrder
    done = 0

    def __iter__(self) -> Iterator[Batch]:
        self.order.first = self.done
        for batch in super().__iter__():
            self.done += 1
            weight = self.order.weight(len(batch["index"]))
            yield batch if weight == 1 else {**batch, "weight": weight}

    def state_dict(self) -> dict[str, int]:
        """Empty: the data module keeps the position, because Lightning restores a loader's only in some resumes.

        The method must exist: it tells Lightning that a run can be resumed in the middle of an epoch.
        """
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to do, see `state_dict`."""
