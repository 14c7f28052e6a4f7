"""Initial weights, each drawn once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_TABLES = ("cls_token", "positions", "position_bias", "rpb")


def initialise(net: nn.Module, std: float) -> None:
    """Draw weights, class token and tables of positions from a truncated normal distribution; biases are 0.

    So begin transformers (Dosovitskiy et al., arXiv:2010.11929) and what is built like them.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            truncated_normal(module.weight, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[2] in _TABLES:
            truncated_normal(parameter, std)


def truncated_normal(weight: Tensor, std: float) -> Tensor:
    """Draw a weight from the normal distribution around 0 within -2..2."""
    if std < 0.2:  # 2 is beyond 10 standard deviations, where torch's generator draws nothing: no need to look
        return nn.init.normal_(weight, std=std)
    return nn.init.trunc_normal_(weight, std=std)


def initialise_convolutions(net: nn.Module) -> None:
    """Draw kernels so that activations keep their variance on the way back (He et al., arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


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
