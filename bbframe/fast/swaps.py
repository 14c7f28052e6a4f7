"""Which forward stands for which class's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from bbframe.layers.recompute import Recomputed

F = TypeVar("F", bound=Callable[..., Any])
FORWARDS: dict[str, Callable[..., Any]] = {}  # by the module and the name of the class: ours are not imported


def swaps(name: str) -> Callable[[F], F]:
    """Let a function of a module and its inputs stand for the forward of exactly one class, "module.Class"."""

    def add(function: F) -> F:
        FORWARDS[name] = function
        return function

    return add


def class_name(module: nn.Module) -> str:
    """The name of a module's class, as `swaps` takes it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def unheard(*modules: nn.Module) -> bool:
    """Whether modules compute what their classes say and nobody listens: neither hooks nor a forward of its own."""
    return all(
        not (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)
        and is_fast(vars(holder(m)).get("forward"))
        for m in modules
    )


def is_fast(forward: Any) -> bool:
    """Whether the forward of an instance is none, or one of these."""
    return forward is None or getattr(getattr(forward, "func", None), "__module__", "").startswith("bbframe.fast.")


def holder(module: nn.Module) -> Any:
    """Where the forward of an instance is set: on what computes a block again, or on the module."""
    forward = vars(module).get("forward")
    return forward if isinstance(forward, Recomputed) else module
