"""The order in which images are handed out: which of them make each batch of an epoch, on each process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bbframe.data.seeds import derive

Key = tuple[int, int]  # (epoch, index): a worker must know the epoch, because it draws the augmentation from both


class TrainOrder:
    """The training batches as one endless row of epochs, each a permutation by (seed, epoch).

    An iteration gives an epoch's number of batches, from batch number `first` on. Every batch is full and the rest of
    an epoch is left out, because BatchNorm cannot train on a batch of one and a smaller batch weighs its images more.
    Fewer images than one batch make one smaller batch. Each of several processes takes every `world`-th image,
    beginning at its `rank`. `permutation` draws an epoch's; without one, all orders are as likely.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        permutation: Callable[[torch.Generator], Tensor] | None = None,
    ):
        if count < world:
            raise ValueError(f"data: {count} training images cannot occupy {world} devices; lower trainer.devices")
        self.count, self.seed, self.rank, self.world = count, seed, rank, world
        self.batch_size = min(batch_size, count // world)
        self.first = 0
        self._permutation = permutation or self._any_permutation

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        order: Tensor | None = None
        for number in range(self.first, self.first + len(self)):
            epoch, batch = divmod(number, len(self))
            if order is None or batch == 0:
                order = self._epoch(epoch)
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, index) for index in chosen.tolist()]

    def _epoch(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        return self._permutation(generator)[self.rank :: self.world]

    def _any_permutation(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)


class EvalOrder(Sequence[list[Key]]):
    """Some images in the order given, by their `indices`; the last batch may be smaller."""

    def __init__(self, indices: Sequence[int], batch_size: int):
        self.indices, self.batch_size = indices, batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, batch: Any) -> Any:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        return [(0, index) for index in self.indices[batch * self.batch_size : (batch + 1) * self.batch_size]]


def eval_order(count: int, batch_size: int, rank: int = 0, world: int = 1) -> EvalOrder:
    """Every image once, in its own order, those of one of several processes."""
    return EvalOrder(range(rank, count, world), batch_size)
