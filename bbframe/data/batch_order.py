"""The order in which images are handed out: which of them make each batch of an epoch, on each process."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bbframe.data.seeds import derive

Key = tuple[int, int]  # (epoch, index): a worker must know the epoch, because it draws the augmentation from both


class TrainOrder:
    """The training batches as one endless row of epochs, each a permutation by (seed, epoch).

    An iteration gives an epoch's number of batches, from batch number `first` on. Every batch is full and the rest of
    an epoch is left out, because BatchNorm cannot train on a batch of one and a smaller batch weighs its images more.
    Fewer images than one batch make one smaller batch. Each of several processes takes every `world`-th image,
    beginning at its `rank`.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        if count < world:
            raise ValueError(f"data: {count} training images cannot occupy {world} devices; lower trainer.devices")
        self.count, self.seed, self.rank, self.world = count, seed, rank, world
        self.batch_size = min(batch_size, count // world)
        self.first = 0

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        order: list[Key] = []
        for number in range(self.first, self.first + len(self)):
            epoch, batch = divmod(number, len(self))
            if not order or batch == 0:
                order = self._epoch(epoch)
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _epoch(self, epoch: int) -> list[Key]:
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        order = torch.randperm(self.count, generator=generator)[self.rank :: self.world]
        return [(epoch, index) for index in order.tolist()]


def eval_order(count: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[Key]]:
    """Every image once, in its own order; the last batch may be smaller."""
    keys = [(0, i) for i in range(rank, count, world)]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
