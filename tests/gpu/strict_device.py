"""A device without the hardware: its tensors lie on the CPU, and mix with the CPU's as little as a GPU's do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

# torch knows this name on every machine, and runs the backward pass of its tensors in the calling thread
DEVICE = torch.device("lazy")
_aten = torch.ops.aten
# a GPU's tensor may be indexed by indices on the CPU; a mask decides a shape, unless one value is put in its places
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
# the host waits for the GPU where a value decides a shape or a branch
_WAITING = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default}


class DeviceTensor(Tensor):
    """A tensor that says it lies on DEVICE, around a tensor of the CPU that holds its values."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> DeviceTensor:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = Tensor._make_wrapper_subclass(cls, values.shape, device=DEVICE, **layout)
        made.values = values
        return made

    def __repr__(self, *args: Any, **options: Any) -> str:
        return f"DeviceTensor({self.values})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} is called outside of StrictDevice")


class StrictDevice(TorchDispatchMode):
    """Inside, `device=DEVICE` works, and an operation on tensors of both devices raises RuntimeError.

    `waits` lists the operations for which a GPU would make the host wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self) -> StrictDevice:
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(..., device=DEVICE) moves where we see it
        return super().__enter__()

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        inside = [x for x in given if isinstance(x, DeviceTensor)]
        moves = func in (_aten._to_copy.default, _aten.copy_.default)
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        else:
            there = isinstance(args[0], DeviceTensor) if moves else bool(inside)
        strangers = [tuple(x.shape) for x in given if not isinstance(x, DeviceTensor) and x.ndim > 0]
        if inside and strangers and not moves and func not in _INDEXING:
            raise RuntimeError(f"{func}: some tensors lie on {DEVICE}, and those of shapes {strangers} on the CPU")
        masks = func in _INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
        decides = masks and (func is _aten.index.Tensor or args[2].numel() > 1)
        if inside and (func in _WAITING or decides or (moves and not there)):
            self.waits.append(str(func))
        args, kwargs = tree_map(lambda x: x.values if isinstance(x, DeviceTensor) else x, (args, kwargs))
        out = func(*args, **kwargs)
        if not there:
            return out
        known = {id(x.values): x for x in inside}  # an operation in place returns what it was given
        leaves, spec = tree_flatten(out)

        def wrap(x: Any) -> Any:
            return known[id(x)] if id(x) in known else DeviceTensor(x) if isinstance(x, Tensor) else x

        return tree_unflatten([wrap(x) for x in leaves], spec)
