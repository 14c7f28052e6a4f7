"""Linear layers by oneDNN's product of matrices.

On a CPU F.linear calls MKL in float32, which leaves a part of an AMD processor unused: oneDNN computes the same, bias
and activation included, at 200 instead of 140 to 190 GFLOP/s on two cores of a Zen 4, at twice MKL's rate on a Zen 5.
Compilers, which call MKL too, are given that product as one operation where no gradient is asked of it: 525 instead of
686 ms for 8 images of a compiled Swin-T.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from bbframe.fast import probe
from bbframe.fast.converter import swaps, unheard
from bbframe.fast.probe import LINEAR, as_autocast, may_run, needs_gradient, ordinary, served
from bbframe.layers.attention import QkvLinear

_LARGE = 2**20  # from here on a weight's gradient is faster as a product than as a convolution's, by 1.2 to 1.8


@swaps("torch.nn.modules.linear.Linear")
def linear_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    """The forward of nn.Linear."""
    return linear(x, layer.weight, layer.bias)


@swaps("bbframe.layers.attention.QkvLinear")
def qkv_forward(layer: QkvLinear, x: Tensor) -> Tensor:
    """The forward of `QkvLinear`."""
    return linear(x, layer.weight, layer.joint_bias())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, act: nn.Module | None = None) -> Tensor:
    """x (..., C_in) times weight (C_out, C_in), plus bias, through an activation: (..., C_out)."""
    if not (may_run("product", x, weight, bias) or _in_a_graph(x, weight, bias)):
        x = F.linear(x, weight, bias)
        return x if act is None else act(x)
    x, weight, bias = as_autocast(x, weight, bias)
    if needs_gradient(x, weight, bias):
        x = _Product.apply(x, weight, bias)
        return x if act is None else act(x)
    fused = fused_activation(act)
    x = _product(x, weight, bias, *(fused or ("none", "")))
    return x if fused or act is None else act(x)


def _in_a_graph(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a compiler, left alone, would make a slower product of this."""
    compiling = probe.FASTER and torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    mine = compiling and not needs_gradient(x, weight, bias) and ordinary(x, weight, bias)
    return mine and not torch._C._are_functorch_transforms_active() and served("product", x, weight, bias)


def fused_activation(act: nn.Module | None) -> tuple[str, str] | None:
    """The names that oneDNN gives to an activation behind a product; None when it has none or is heard."""
    if act is not None and not unheard(act):
        return None
    if isinstance(act, nn.GELU):
        return "gelu", act.approximate
    return {type(None): ("none", ""), nn.ReLU: ("relu", ""), nn.SiLU: ("swish", "")}.get(type(act))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, act: str = "none", algorithm: str = "") -> Tensor:
    return (torch.ops.bbframe.product if torch.compiler.is_compiling() else _onednn)(x, weight, bias, act, algorithm)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, act: str, algorithm: str) -> Tensor:
    assert LINEAR is not None
    return LINEAR(x, weight, bias, act, [], algorithm)


def _shape_of_product(x: Tensor, weight: Tensor, bias: Tensor | None, act: str, algorithm: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


# our own operation for compilers, which take PyTorch's own for one whose weights never change; the decorators that
# torch.library has for this would load its compiler, a second, with the package
_LIBRARY = torch.library.Library("bbframe", "DEF")
_LIBRARY.define("product(Tensor x, Tensor weight, Tensor? bias, str act, str algorithm) -> Tensor")
_LIBRARY.impl("product", _onednn, "CPU")
torch.library.register_fake("bbframe::product", _shape_of_product, lib=_LIBRARY)


class _Product(torch.autograd.Function):
    """oneDNN's product, which has no gradient of its own in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            (grad @ weight if torch.is_grad_enabled() else _product(grad, weight.t(), None)) if of_x else None,
            weight_gradient(x.flatten(0, -2), grad.flatten(0, -2)) if of_weight else None,
            grad.flatten(0, -2).sum(0) if of_bias else None,
        )


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a weight (C_out, C_in) from its inputs (N, C_in) and the gradients of its outputs (N, C_out)."""
    if torch.is_grad_enabled() or x.dtype != torch.float32:  # to be differentiated again, or by oneDNN anyway
        return grad.t() @ x
    if x.shape[1] * grad.shape[1] >= _LARGE:
        return _product(grad.t(), x.t(), None)
    # as a 1x1 convolution's gradient, without a copy; oneDNN wants several images, and more outputs than inputs
    if x.shape[1] > grad.shape[1]:
        return weight_gradient(grad, x).t()
    count = math.gcd(len(x), 8)
    x, grad = (y.contiguous().view(count, 1, len(y) // count, -1).permute(0, 3, 1, 2) for y in (x, grad))
    return conv2d_weight(x, (grad.shape[1], x.shape[1], 1, 1), grad).flatten(1)
