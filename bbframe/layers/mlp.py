"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bbframe.layers.activation import activation
from bbframe.layers.linear import Linear, as_autocast, by_onednn, linear, needs_gradient, weight_gradient
from bbframe.layers.pieces import by_rows, row_count


class Mlp(nn.Module):
    """Linear, activation, linear, over the last dimension; `dropout` follows the activation and the second linear."""

    def __init__(self, channels: int, hidden: int, act: str, dropout: float = 0.0):
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.act = activation(act)
        self.fc2 = Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.dropout.p > 0:
            return self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))
        return perceptron(x, self.fc1, self.act, self.fc2)


def perceptron(x: Tensor, fc1: nn.Module, act: nn.Module, fc2: nn.Module) -> Tensor:
    """fc2(act(fc1(x))) over the last dimension of x (..., C)."""
    if not all(map(untouched, (fc1, act, fc2))):
        return fc2(act(fc1(x)))
    if by_onednn(x) and needs_gradient(x, *fc1.parameters(), *fc2.parameters()):
        return _Perceptron.apply(act, *as_autocast(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias))
    return by_rows(lambda rows: fc2(linear(rows, fc1.weight, fc1.bias, act)), x)


def untouched(module: nn.Module) -> bool:
    """Whether a module does what its class says: nobody replaced it, or listens to what goes in or comes out."""
    ours = type(module) is Linear or type(module).__module__ == "torch.nn.modules.activation"
    return ours and not (module._forward_hooks or module._forward_pre_hooks)


class _Perceptron(torch.autograd.Function):
    """The same for training, a few rows at a time: what the activation returned is computed again, not kept."""

    @staticmethod
    def forward(ctx: Any, act: nn.Module, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        pieces = _pieces(x)
        hidden = [linear(rows, w1, b1) for rows in pieces]
        ctx.act = act
        ctx.save_for_backward(x, w1, b1, w2, b2, *hidden)
        out = [linear(act(rows), w2, b2) for rows in hidden]
        return torch.cat(out).view(*x.shape[:-1], -1) if len(out) > 1 else out[0].view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, *hidden = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            given = [t for t, needed in zip((x, w1, b1, w2, b2), ctx.needs_input_grad[1:], strict=True) if needed]
            out = nn.functional.linear(ctx.act(nn.functional.linear(x, w1, b1)), w2, b2)
            found = iter(torch.autograd.grad(out, given, grad, create_graph=True))
            return (None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:]))
        of_x, sums = [], None
        for rows, before, g in zip(_pieces(x), hidden, _pieces(grad), strict=True):
            with torch.enable_grad():
                leaf = before.detach().requires_grad_()
                after = ctx.act(leaf)
            (of_before,) = torch.autograd.grad(after, leaf, linear(g, w2.t()))
            of_x.append(linear(of_before, w1.t()))
            parts = (
                weight_gradient(rows, of_before),
                of_before.sum(0),
                weight_gradient(after.detach(), g),
                g.sum(0),
            )
            sums = parts if sums is None else tuple(s.add_(part) for s, part in zip(sums, parts, strict=True))
        return (None, torch.cat(of_x).view_as(x), *sums)


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    x = x.reshape(-1, x.shape[-1])
    return x.tensor_split(-(-len(x) // row_count()))
