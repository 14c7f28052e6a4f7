"""Initial weights that are drawn only where nothing replaces them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class LateDraws(TorchFunctionMode):
    """A context that puts off every draw of a parameter: at the end, those that nothing has overwritten are made.

    A layer of torch draws its weights, an architecture draws them again, and a checkpoint replaces them: three times
    the work. Whatever reads a parameter makes its draw at once. Within another such context it ends with that one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: dict[int, tuple[nn.Parameter, Callable[[], Any]]] = {}  # by the parameter's id

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")  # as torch.nn.init names it
        if func in _DRAWS and isinstance(target, nn.Parameter) and kwargs.get("generator") is None:
            self.pending.pop(id(target), None)
            if not target.is_meta:
                self.pending[id(target)] = target, lambda: func(*args, **kwargs)
            return target
        if self.pending and func not in _METADATA:
            if func in _OVERWRITES:
                self.pending.pop(id(target), None)
            for tensor in _tensors((args, kwargs)):
                self._draw(self.pending.pop(id(tensor), None))
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is not None:  # what cannot be made is not drawn either
            self.pending.clear()
        while self.pending:
            self._draw(self.pending.pop(next(iter(self.pending))))

    @staticmethod
    def _draw(late: tuple[nn.Parameter, Callable[[], Any]] | None) -> None:
        if late is not None:
            with torch.no_grad():
                late[1]()


def _tensors(values: Any) -> Iterable[Tensor]:
    """The tensors among arguments, also inside of lists and mappings."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))


_DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}
_OVERWRITES = {Tensor.zero_, Tensor.fill_, Tensor.copy_, nn.init.constant_}
# what is known of a parameter without its values
_METADATA = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_floating_point, Tensor.is_contiguous),
    *(Tensor.requires_grad_, Tensor.requires_grad.__get__, Tensor.requires_grad.__set__),  # type: ignore[attr-defined]
    *(getattr(Tensor, name).__get__ for name in "shape ndim dtype device layout is_meta is_leaf grad grad_fn".split()),
}
