"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bbframe.layers.activation import activation
from bbframe.layers.linear import Linear, by_onednn, linear, needs_gradient, weight_gradient
from bbframe.layers.once import as_autocast
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


def perceptron(x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, norm: nn.Module | None = None) -> Tensor:
    """fc2(norm(act(fc1(x)))) over the last dimension of x (B, ..., C); a norm, if any, sees whole images of x."""
    if not all(map(untouched, (fc1, act, fc2))):
        x = act(fc1(x))
        return fc2(x if norm is None else norm(x))
    if by_onednn(x) and needs_gradient(x, *fc1.parameters(), *fc2.parameters()):
        between = act if norm is None else nn.Sequential(act, norm)
        weights = as_autocast(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        return _Perceptron.apply(between, norm is None, *weights, *between.parameters())
    if norm is not None:
        return fc2(norm(linear(x, fc1.weight, fc1.bias, act)))
    return by_rows(lambda rows: fc2(linear(rows, fc1.weight, fc1.bias, act)), x)


def untouched(module: nn.Module) -> bool:
    """Whether a module does what its class says: nobody replaced it, or listens to what goes in or comes out."""
    ours = type(module) is Linear or type(module).__module__ == "torch.nn.modules.activation"
    return ours and not (module._forward_hooks or module._forward_pre_hooks)


class _Perceptron(torch.autograd.Function):
    """The same for training, a few rows or images at a time: what comes `between` is computed again, not kept."""

    @staticmethod
    def forward(
        ctx: Any,
        between: nn.Module,
        of_rows: bool,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        *inside: Tensor,
    ) -> Tensor:
        hidden = [linear(piece, w1, b1) for piece in _pieces(x, of_rows)]
        out = [linear(between(piece), w2, b2) for piece in hidden]
        ctx.between, ctx.of_rows = between, of_rows
        ctx.save_for_backward(x, w1, b1, w2, b2, *hidden)
        return torch.cat(out).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, *saved = ctx.saved_tensors
        inside = list(ctx.between.parameters())
        asked = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # to be differentiated again
            out = nn.functional.linear(ctx.between(nn.functional.linear(x, w1, b1)), w2, b2)
            given = [t for t, needed in zip((x, w1, b1, w2, b2, *inside), asked, strict=True) if needed]
            found = iter(torch.autograd.grad(out, given, grad, create_graph=True))
            return (None, None, *(next(found) if needed else None for needed in asked))
        of_x, sums = [], None
        trained = [weight for weight in inside if weight.requires_grad]
        for piece, before, g in zip(_pieces(x, ctx.of_rows), saved, _pieces(grad, ctx.of_rows), strict=True):
            with torch.enable_grad():
                before = before.detach().requires_grad_()
                after = ctx.between(before)
            of_after = linear(g, w2.t()).to(after.dtype)
            of_before, *of_inside = torch.autograd.grad(after, (before, *trained), of_after)
            of_x.append(linear(of_before, w1.t()))
            piece, of_before, after, g = (y.flatten(0, -2) for y in (piece, of_before, after.detach().to(g.dtype), g))
            parts = [weight_gradient(piece, of_before), of_before.sum(0), weight_gradient(after, g), g.sum(0)]
            parts += of_inside
            sums = parts if sums is None else [total.add_(part) for total, part in zip(sums, parts, strict=True)]
        assert sums is not None
        found = iter(sums[4:])
        of_norm = [next(found) if weight.requires_grad else None for weight in inside]
        return (None, None, torch.cat(of_x).view_as(x), *sums[:4], *of_norm)


def _pieces(x: Tensor, of_rows: bool) -> tuple[Tensor, ...]:
    """A few rows (N, C), or images (B, ..., C), at a time."""
    pieces = -(-x.shape[:-1].numel() // row_count())
    return (x.flatten(0, -2) if of_rows else x).tensor_split(pieces if of_rows else min(pieces, len(x)))
