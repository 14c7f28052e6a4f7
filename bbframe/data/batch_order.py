"""The order in which images are handed out: which of them make each batch of an epoch, on each process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bbframe.data.seeds import derive

Key = tuple[int, int]  # (epoch, index): a worker must know the epoch, because it draws the augmentation from both
STAND_IN = -1  # the epoch of a key whose image no result may count


class TrainOrder:
    """The training batches as one endless row of epochs, each a permutation by (seed, epoch).

    The images of one optimizer step, `step_images`, are the next ones of the permutation, however many processes and
    batches share them: `parts` batches a process, whose sizes differ by one at most. Without `step_images` a step is
    one full batch a process. Every step is full and the rest of an epoch is left out, because BatchNorm cannot train
    on a batch of one and a smaller step weighs its images more. Fewer images than one step make one smaller step.

    An iteration gives an epoch's number of batches, from batch number `first` on. Each of several processes takes
    every `world`-th image of a part, beginning at its `rank`. `permutation` draws an epoch's; without one, all orders
    are as likely.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        step_images: int | None = None,
        permutation: Callable[[torch.Generator], Tensor] | None = None,
    ):
        if count < world:
            raise ValueError(f"data: {count} training images cannot occupy {world} devices; lower trainer.devices")
        self.count, self.seed, self.rank, self.world = count, seed, rank, world
        whole = batch_size * world
        self.step_images = min(step_images or whole, count)
        self.parts = math.ceil(self.step_images / whole)
        self.accumulated = math.ceil((step_images or whole) / whole)  # by how many batches a loss is divided
        if self.step_images // self.parts < world:
            raise ValueError(
                f"data: the {self.step_images} images of a step leave some of {world} processes without any at "
                f"data.batch_size={batch_size}; use {self.step_images} processes or fewer, or a larger batch_size"
            )
        self.first = 0
        self._permutation = permutation or self._any_permutation

    def __len__(self) -> int:
        return self.count // self.step_images * self.parts

    def __iter__(self) -> Iterator[list[Key]]:
        order: Tensor | None = None
        for number in range(self.first, self.first + len(self)):
            epoch, batch = divmod(number, len(self))
            if order is None or batch == 0:
                order = self._epoch(epoch)
            step, part = divmod(batch, self.parts)
            ends = [step * self.step_images + i * self.step_images // self.parts for i in (part, part + 1)]
            yield [(epoch, index) for index in order[ends[0] : ends[1]][self.rank :: self.world].tolist()]

    def weight(self, images: int) -> float:
        """By what a batch's mean loss is multiplied so that all images of a step weigh alike; 1 for equal batches.

        The mean over the processes and the accumulated batches of such losses is the mean over the images.
        """
        return images * self.world * self.accumulated / self.step_images

    def _epoch(self, epoch: int) -> Tensor:
        """The indices of all images in the order of an epoch, (count,)."""
        return self._permutation(torch.Generator().manual_seed(derive(self.seed, "order", epoch)))

    def _any_permutation(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)


class EvalOrder(Sequence[list[Key]]):
    """Some images in the order given, by their `indices`; the last batch may be smaller.

    Further batches, up to `batches`, hold the key of a `STAND_IN` each.
    """

    def __init__(self, indices: Sequence[int], batch_size: int, batches: int = 0, stand_in: int = 0):
        self.indices, self.batch_size, self.stand_in = indices, batch_size, stand_in
        self.batches = max(batches, -(-len(indices) // batch_size))

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, batch: Any) -> Any:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        chosen = self.indices[batch * self.batch_size : (batch + 1) * self.batch_size]
        return [(0, index) for index in chosen] or [(STAND_IN, self.stand_in)]


def eval_order(count: int, batch_size: int, rank: int = 0, world: int = 1) -> EvalOrder:
    """Every image once, in its own order, those of one of several processes.

    Every process gets the same number of batches, because some networks wait for each other in every one: a process
    that runs out of images gets the key of a `STAND_IN`.
    """
    most = math.ceil(math.ceil(count / world) / batch_size)
    return EvalOrder(range(rank, count, world), batch_size, most, rank % count)
