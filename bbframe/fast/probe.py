"""Where a faster operation may stand for torch's: for which tensors, under which modes, in which dtypes.

The private operations of torch that call oneDNN are used in a dtype once they have run on this machine and have given
what torch's public ones give; an operation that is missing or raises is left alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

ENABLED = os.environ.get("BBFRAME_FAST", "1") != "0"
LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
CONVOLUTION = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}  # and the dtypes that there are fast ways for
_PLAIN = (Tensor, nn.Parameter)
_works: dict[tuple[str, torch.dtype], bool] = {}
_local = threading.local()


def _mkl_on_another_make() -> bool:
    """Whether torch multiplies by Intel's library on another maker's processor, which that leaves partly unused."""
    cpus = Path("/proc/cpuinfo")
    return torch.backends.mkl.is_available() and cpus.exists() and "AuthenticAMD" in cpus.read_text()


FASTER = _mkl_on_another_make()  # oneDNN's products are; a rule, not a timing, so that equal runs give equal bits


def works(operation: str, dtype: torch.dtype) -> bool:
    """Whether an operation of `_PROBES` ran in a dtype on this machine and gave what it should."""
    if (operation, dtype) not in _works:
        if dtype not in _TOLERANCE or torch.compiler.is_compiling():
            return False
        _works[operation, dtype] = _agrees(_PROBES[operation], dtype)
    return _works[operation, dtype]


def check_all() -> None:
    """Probe every operation in every dtype, because a compiler cannot."""
    if FASTER:
        for operation in _PROBES:
            for dtype in _TOLERANCE:
                works(operation, dtype)


def _agrees(probe: Callable[[Callable[..., Tensor]], tuple[Tensor, Tensor]], dtype: torch.dtype) -> bool:
    def values(*shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.arange(count, device="cpu").view(shape).mul(0.7).sin().to(dtype)

    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            found, expected = probe(values)
        return found.dtype == dtype and torch.allclose(found, expected, _TOLERANCE[dtype], _TOLERANCE[dtype])
    except Exception:  # whatever a private operation of another torch, or of another processor, raises
        return False


def _probe_product(values: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    x, weight, bias = values(2, 24, 32), values(48, 32), values(48)
    assert LINEAR is not None
    return LINEAR(x, weight, bias, "gelu", [], "none"), F.gelu(F.linear(x, weight, bias))


def _probe_convolution(values: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    x, weight, bias = (
        values(2, 32, 9, 9).contiguous(memory_format=torch.channels_last),
        values(32, 32, 3, 3),
        values(32),
    )
    how = (weight, bias, (1, 1), (1, 1), (1, 1), 1)
    assert CONVOLUTION is not None
    found = CONVOLUTION.binary(CONVOLUTION(x, *how, "relu", [], ""), x, *how, "add", 1.0, "relu", [], None)
    return found, F.relu(F.conv2d(F.relu(F.conv2d(x, *how)), *how) + x)


_PROBES = {"product": _probe_product, "convolution": _probe_convolution}


def may_run(operation: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether an operation of `_PROBES` is the faster one for these tensors, whose dtypes agree, and may be called."""
    return FASTER and by_hand(x, *others) and served(operation, x, *others)


def served(operation: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether an operation serves these tensors, whoever calls it."""
    dtype = dtype_of(x)
    return (
        works(operation, dtype)
        and all(y is None or dtype_of(y) == dtype for y in others)
        and x.ndim > 1
        and x.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
    )


def by_hand(*tensors: Tensor | None) -> bool:
    """Whether ours may stand for torch's operations: these are ordinary tensors on a CPU, and nothing looks on."""
    return (
        ENABLED
        and not torch.compiler.is_compiling()
        and ordinary(*tensors)
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether these are on a CPU, and no subclass wants to see the operations."""
    return all(x is None or (type(x) in _PLAIN and x.device.type == "cpu") for x in tensors)


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether a gradient will be asked of what is computed from these."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def dtype_of(x: Tensor) -> torch.dtype:
    """The dtype in which an operation that autocast knows gets a tensor of a CPU."""
    cast = torch.is_autocast_enabled("cpu") and x.dtype is not torch.float64
    return torch.get_autocast_dtype("cpu") if cast else x.dtype


def as_autocast(*tensors: Any) -> tuple[Any, ...]:
    """Tensors in the dtype of an active autocast; None stays."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return tuple(None if x is None else _cast(x) for x in tensors)


def _cast(x: Tensor) -> Tensor:
    dtype = dtype_of(x)
    if torch.compiler.is_compiling() or not isinstance(x, nn.Parameter) or x.dtype == dtype:
        return x.to(dtype)
    return once(x, lambda: x.to(dtype))


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
