"""Activations computed again for the gradient instead of kept (Chen et al., arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from bbframe.layers.attention import recording


class Recomputed:
    """A block's forward that stores its input alone while it trains, and leaves the batch statistics counted once."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        if "forward" in vars(block):  # which shadows the class's, here too
            vars(self)["forward"] = vars(block)["forward"]

    def undo(self) -> None:
        """Give the block back the forward that it had."""
        del self.block.forward
        if "forward" in vars(self):
            self.block.forward = vars(self)["forward"]

    def forward(self, *args: Any) -> Any:
        return type(self.block).forward(self.block, *args)

    def __call__(self, *args: Any) -> Any:
        if not self.block.training or recording():
            return self.forward(*args)
        if torch.compiler.is_compiling():  # the compiler updates the statistics outside of what it computes again
            return checkpoint(self.forward, *args, use_reentrant=False)
        return checkpoint(self.forward, *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_kept(self.block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """No batch normalisation inside `block` moves its running statistics, though all save what they saved before."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
