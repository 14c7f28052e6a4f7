"""An order of images that needs few shards at a time, and the shards that it needs next fetched meanwhile."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

FETCHERS = 2  # downloads at a time, ahead of the readers
MOST_AHEAD = 65_536  # images; more keys would only occupy memory


def windowed_permutation(shard: np.ndarray, window: int | None, generator: torch.Generator) -> Tensor:
    """Every image once: shards in random order, and the images of each `window` of them mixed; None: of all."""
    order = torch.randperm(len(shard), generator=generator)
    if window is None:
        return order
    numbers, places = np.unique(shard, return_inverse=True)
    turn = torch.randperm(len(numbers), generator=generator) // window
    return order[torch.argsort(turn[torch.from_numpy(places)][order], stable=True)]


class FetchingAhead:
    """Batches of keys as `order` gives them; the shards of the next `images` are fetched while these are read."""

    def __init__(self, order: Any, shard: np.ndarray, images: int, fetch: Callable[[int], None]):
        self.order, self.shard, self.fetch = order, shard, fetch
        self.images = min(images, MOST_AHEAD)

    def __len__(self) -> int:
        order: Sized = self.order
        return len(order)

    def __iter__(self) -> Iterator[Any]:
        wanted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        for _ in range(FETCHERS):
            threading.Thread(target=self._work, args=(wanted,), daemon=True).start()
        try:
            waiting: deque[Any] = deque()
            asked: set[int] = set()
            count = 0
            for batch in self.order:
                waiting.append(batch)
                count += len(batch)
                for number in dict.fromkeys(self.shard[[index for _, index in batch]].tolist()):
                    if number not in asked:
                        wanted.put(number)
                        asked.add(number)
                while count > self.images:
                    count -= len(waiting[0])
                    yield waiting.popleft()
            yield from waiting
        finally:
            while not wanted.empty():
                wanted.get()
            for _ in range(FETCHERS):
                wanted.put(None)

    def _work(self, wanted: queue.SimpleQueue[int | None]) -> None:
        while (number := wanted.get()) is not None:
            self.fetch(number)
