"""Operations that autocast does not know, under autocast."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_local = threading.local()


def as_autocast(*tensors: Any) -> tuple[Any, ...]:
    """Tensors of a CPU in the dtype of an active autocast, as operations that it knows get them; None stays."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(None if x is None else _cast(x, dtype) for x in tensors)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    kept = getattr(_local, "casts", None)
    if kept is None or x.dtype == dtype or not isinstance(x, torch.nn.Parameter):
        return x.to(dtype)
    if x not in kept:
        kept[x] = x.to(dtype)
    return kept[x]


@contextmanager
def casts_kept() -> Iterator[None]:
    """Cast a parameter once inside the block, not for each use; without gradients only."""
    outer = getattr(_local, "casts", None)
    _local.casts = {} if outer is None else outer
    try:
        yield
    finally:
        _local.casts = outer
