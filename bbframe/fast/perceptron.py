"""Perceptrons, a few rows at a time: what is made of them then stays in a CPU's cache.

A whole batch goes through memory between two layers, and what is larger than 32 MB comes from the system anew each
time, page by page. On two cores of a Zen 4 the perceptron of ConvNeXt-T's first stage takes 22 instead of 34 ms for 8
images, its products alone 19.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bbframe.fast.converter import swaps, unheard
from bbframe.fast.probe import as_autocast, by_hand, computed_once, may_run, needs_gradient
from bbframe.fast.product import linear, weight_gradient

_ROWS = 1536  # a thread; 1024 to 2048 are equally fast, fewer make thin products


@swaps("bbframe.layers.mlp.Mlp")
def mlp_forward(mlp: Any, x: Tensor) -> Tensor:
    """The forward of `Mlp`: a few rows at a time."""
    drops = mlp.training and mlp.dropout.p > 0
    if drops or not unheard(mlp.dropout) or not _simple(mlp.fc1, mlp.act, mlp.fc2):
        return type(mlp).forward(mlp, x)
    return perceptron(x, mlp.fc1, mlp.act, mlp.fc2)


@swaps("bbframe.models.convnext.Block")
@swaps("bbframe.models.convnextv2.Block")
@swaps("bbframe.models.dinov3_convnext.Block")
def convnext_block(block: Any, x: Tensor) -> Tensor:
    """The forward of ConvNeXt's blocks: the perceptron takes a few rows, or images, at a time."""
    if not _simple(block.fc1, block.act, block.fc2):
        return type(block).forward(block, x)
    residual = x
    x = block.norm(block.conv(x).permute(0, 2, 3, 1))
    x = perceptron(x, block.fc1, block.act, block.fc2, getattr(block, "grn", None))
    x = block.scale(x) if hasattr(block, "scale") else x
    return residual + block.drop_path(x.permute(0, 3, 1, 2))


def _simple(fc1: nn.Module, act: nn.Module, fc2: nn.Module) -> bool:
    """Whether nobody replaced these layers, or listens to what goes in or comes out."""
    ours = type(fc1) is type(fc2) is nn.Linear and type(act).__module__ == "torch.nn.modules.activation"
    return ours and unheard(fc1, act, fc2)


def perceptron(x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, norm: nn.Module | None = None) -> Tensor:
    """fc2(norm(act(fc1(x)))) over the last dimension of x (B, ..., C); a norm, if any, sees whole images of x."""
    weights = fc1.weight, fc1.bias, fc2.weight, fc2.bias
    between = act if norm is None else nn.Sequential(act, norm)
    if None not in weights and may_run("product", x, *weights) and needs_gradient(x, *weights, *between.parameters()):
        return _Perceptron.apply(between, norm is None, *as_autocast(x, *weights), *between.parameters())
    if norm is not None:
        return fc2(norm(linear(x, fc1.weight, fc1.bias, act)))
    return by_rows(lambda rows: fc2(linear(rows, fc1.weight, fc1.bias, act)), x)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a function of the rows of x, (..., C) -> (..., C_out), a few rows at a time where that pays."""
    if torch.is_grad_enabled() or not by_hand(x) or x.shape[:-1].numel() <= _row_count():
        return function(x)
    with computed_once():
        return torch.cat([function(piece) for piece in _pieces(x, of_rows=True)]).unflatten(0, x.shape[:-1])


def _row_count() -> int:
    return _ROWS * torch.get_num_threads()


class _Perceptron(torch.autograd.Function):
    """The same for training, a few rows or images at a time: what comes `between` is computed again, not kept."""

    @staticmethod
    def forward(ctx: Any, between: nn.Module, of_rows: bool, x: Tensor, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, *_ = weights
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
    pieces = -(-x.shape[:-1].numel() // _row_count())
    return (x.flatten(0, -2) if of_rows else x).tensor_split(pieces if of_rows else min(pieces, len(x)))
