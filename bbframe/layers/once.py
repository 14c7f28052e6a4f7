"""What follows from the weights alone is computed once for all pieces of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_local = threading.local()


@contextmanager
def computed_once() -> Iterator[None]:
    """Inside the block `once` computes a thing once; without gradients, and while no weight changes."""
    outer = getattr(_local, "known", None)
    _local.known = {} if outer is None else outer
    try:
        yield
    finally:
        _local.known = outer


def once(owner: Any, compute: Callable[[], Any]) -> Any:
    """compute(), or what it returned to the same owner before inside the present `computed_once`, if there is one."""
    known = getattr(_local, "known", None)
    if known is None:
        return compute()
    if id(owner) not in known:
        known[id(owner)] = owner, compute()  # an owner that is held keeps its id
    return known[id(owner)][1]


def as_autocast(*tensors: Any) -> tuple[Any, ...]:
    """Tensors of a CPU in the dtype of an active autocast, as operations that it knows get them; None stays."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(None if x is None else _cast(x, dtype) for x in tensors)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    if torch.compiler.is_compiling() or not isinstance(x, nn.Parameter) or x.dtype == dtype:
        return x.to(dtype)
    return once(x, lambda: x.to(dtype))
