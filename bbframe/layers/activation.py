"""The activations that published configs name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from bbframe.schema import nearest

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


def activation(name: str) -> nn.Module:
    """The activation that a config calls `name`; ValueError for one that is not known."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"hidden_act={name!r} is not known{nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]()
