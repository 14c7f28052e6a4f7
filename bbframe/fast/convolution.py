"""Convolutions for a CPU: with what follows in one go, their norms folded in, a depthwise one's gradient swapped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.fast.converter import swaps, unheard
from bbframe.fast.probe import CONVOLUTION, as_autocast, by_hand, may_run, needs_gradient, once
from bbframe.fast.product import fused_activation, linear
from bbframe.layers.convolution import ConvNorm, DepthwiseConv

_FEW = 200  # places of a map, where a product of patches is faster: 7x7 to 14x14 of one image, up to 3 times
_aten = torch.ops.aten


def convolution(
    conv: nn.Conv2d,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    act: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """act(x * weight + bias + residual) with the geometry of `conv`, in one go where that is possible.

    x is a map (B, C, H, W); the residual has the result's shape.
    """
    if may_run("convolution", x, weight, bias, residual) and not needs_gradient(x, weight, bias, residual):
        return _in_one_go(conv, act, *as_autocast(x, weight, bias, residual))
    return _finished(F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups), act, residual)


def _finished(x: Tensor, act: nn.Module | None, residual: Tensor | None = None, ours: bool = True) -> Tensor:
    """act(x + residual); in place where the tensor is `ours` alone and no gradient misses what it was."""
    if residual is not None:
        x = x.add_(residual) if ours else x + residual
    if act is None:
        return x
    return x.relu_() if ours and type(act) is nn.ReLU and unheard(act) else act(x)


def _in_one_go(
    conv: nn.Conv2d, act: nn.Module | None, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    assert CONVOLUTION is not None
    name, algorithm = fused_activation(act) or ("none", "")
    rows = len(x) * (x.shape[2] // conv.stride[0]) * (x.shape[3] // conv.stride[1])
    if 0 < rows <= _FEW and conv.groups == 1 and conv.dilation == (1, 1):
        x, weight = _patches(x, conv), weight.permute(0, 2, 3, 1).flatten(1)
        x = linear(x, weight, bias, act if residual is None else None).permute(0, 3, 1, 2)
        return x if residual is None else _finished(x, act, residual)
    how = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    if residual is None:
        x = CONVOLUTION(x, *how, name, [], algorithm)
        return x if name != "none" else _finished(x, act)
    relu = "relu" if name == "relu" else None
    x = CONVOLUTION.binary(x, residual, *how, "add", 1.0, relu, [], None)
    return x if relu else _finished(x, act)


def _patches(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """What a convolution sees at each of its places: (B, C, H, W) -> (B, H', W', kH * kW * C)."""
    top, left = (int(side) for side in conv.padding)
    x = x.permute(0, 2, 3, 1)
    x = F.pad(x, (0, 0, left, left, top, top)) if top or left else x
    (height, width), (down, across) = conv.kernel_size, conv.stride
    return x.unfold(1, height, down).unfold(2, width, across).permute(0, 1, 2, 4, 5, 3).flatten(3)


@swaps("bbframe.layers.convolution.ConvNorm")
def conv_norm(module: ConvNorm, x: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
    """act(norm(conv(x)) + residual), in one go where the norm is a fixed factor a channel."""
    if _folds(module, x):
        weight, bias = once(module, lambda: _folded(module))
        return convolution(module.conv, x, weight, bias, act, residual)
    conv = module.conv
    own = type(conv) is nn.Conv2d and unheard(conv)
    if own and conv.in_channels < 16 and conv.kernel_size == (1, 1) != conv.stride:
        x = x.contiguous()  # with channels last oneDNN writes this gradient beyond its memory (torch 2.14)
    x = module.norm(convolution(conv, x, conv.weight, conv.bias) if own else conv(x))
    ours = type(module.norm) is nn.BatchNorm2d and unheard(module.norm) and by_hand(x, residual)
    return _finished(x, act, residual, ours)


@swaps("bbframe.layers.convolution.ConvNormAct")
def conv_norm_act(module: Any, x: Tensor) -> Tensor:
    """The forward of `ConvNormAct`: the activation follows the convolution in one go."""
    return conv_norm(module, x, module.act)


@swaps("bbframe.models.hgnet_v2.AffineConv")
def affine_conv(module: Any, x: Tensor) -> Tensor:
    """The same for HGNetV2's convolutions."""
    return module.lab(conv_norm(module, x, module.act))


def _folds(module: ConvNorm, x: Tensor) -> bool:
    """Whether the norm is a fixed factor a channel that costs less on the kernels than on the map."""
    conv, norm = module.conv, module.norm
    return (
        (type(conv), type(norm)) == (nn.Conv2d, nn.BatchNorm2d)  # nobody replaced or listens to them
        and unheard(conv, norm)
        and not norm.training
        and norm.affine
        and norm.track_running_stats
        and may_run("convolution", x, conv.weight, norm.weight, norm.running_mean)
        and not needs_gradient(x, *module.parameters())
        and conv.weight.numel() * conv.stride[0] * conv.stride[1] < x.numel() // x.shape[1] * conv.out_channels
    )


def _folded(module: ConvNorm) -> tuple[Tensor, Tensor]:
    norm = module.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return as_autocast(module.conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor)


@swaps("bbframe.models.resnet.Block")
def resnet_block(block: Any, x: Tensor) -> Tensor:
    """The forward of ResNet's blocks: activations and the sum follow the convolutions in one go."""
    if not by_hand(x):
        return type(block).forward(block, x)
    residual = block.shortcut(x)
    for conv in block.convs[:-1]:
        x = _step(conv, x, block.relu)
    return _step(block.convs[-1], x, block.act, residual)


def _step(module: nn.Module, x: Tensor, act: nn.Module, residual: Tensor | None = None) -> Tensor:
    if type(module) is ConvNorm and unheard(module):
        return conv_norm(module, x, act, residual)
    return _finished(module(x), act, residual, ours=False)


@swaps("bbframe.models.resnet.Stem")
def resnet_stem(stem: Any, x: Tensor) -> Tensor:
    """The forward of ResNet's stem: in training the activation comes behind the pooling."""
    if not by_hand(x):
        return type(stem).forward(stem, x)
    if type(stem.act) is nn.ReLU and unheard(stem.act, stem.pool) and needs_gradient(x, *stem.parameters()):
        return _finished(stem.pool(conv_norm(stem, x)), stem.act)  # behind the maxima it is the same, of a quarter
    return stem.pool(conv_norm(stem, x, stem.act))


@swaps("bbframe.models.bit.StandardisedConv")
def standardised_convolution(conv: Any, x: Tensor) -> Tensor:
    """The forward of BiT's convolutions: weights are standardised once for all pieces of a batch."""
    if not by_hand(x, conv.weight):
        return type(conv).forward(conv, x)
    return convolution(conv, conv.pad(x), once(conv, conv.standardised), None)


@swaps("bbframe.models.bit.NormAct")
def norm_act(norm: Any, x: Tensor) -> Tensor:
    """The forward of BiT's group norm: its activation works in place where it may."""
    if not by_hand(x):
        return type(norm).forward(norm, x)
    return _finished(super(type(norm), norm).forward(x), norm.act)


@swaps("torch.nn.modules.conv.Conv2d")
def pointwise_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution as a linear layer where the channels lie side by side."""
    pointwise = conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and conv.padding == (0, 0)
    if not (pointwise and x.ndim == 4 and x.permute(0, 2, 3, 1).is_contiguous() and by_hand(x, conv.weight)):
        return type(conv).forward(conv, x)
    return linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


@swaps("bbframe.layers.convolution.DepthwiseConv")
def depthwise_forward(conv: DepthwiseConv, x: Tensor) -> Tensor:
    """The forward of `DepthwiseConv`: its activation in the same go, or its gradient swapped."""
    if not by_hand(x, conv.weight, conv.bias):
        return type(conv).forward(conv, x)
    # smaller kernels are fast anyway, and larger maps would be kernels of another kind to oneDNN
    fits = 5 <= conv.kernel_size[0] <= min(x.shape[2:]) and x.shape[2:].numel() <= 64 * 64
    if fits and needs_gradient(x, conv.weight, conv.bias) and may_run("convolution", x, conv.weight, conv.bias):
        return conv.act(_Depthwise.apply(*as_autocast(x, conv.weight, conv.bias)))
    return convolution(conv, x, conv.weight, conv.bias, conv.act)


class _Depthwise(torch.autograd.Function):
    """The same with a faster gradient of the kernels, for which maps and gradients change places.

    What oneDNN has for it takes 14 ms for 7x7 kernels over 7x7 maps (8 images, 768 channels, two cores of a Zen 4),
    and 19 ms over 56x56 ones (96 channels); a convolution of each map by its gradient 1.4 and 12 ms.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        pad, channels = weight.shape[2] // 2, len(weight)
        maps = (1, x.shape[0] * channels, *x.shape[2:])
        swapped = torch.zeros(())
        if of_weight:
            kernels = grad.reshape(maps).transpose(0, 1)
            swapped = F.conv2d(x.reshape(maps), kernels, padding=pad, groups=maps[1])
            swapped = swapped.view(len(x), *weight.shape).sum(0)
        return (
            _input_gradient(x, weight, grad, pad) if of_x else None,
            swapped if of_weight else None,
            grad.permute(0, 2, 3, 1).flatten(0, 2).sum(0) if of_bias else None,
        )


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor, pad: int) -> Tensor:
    """The gradient of x, which lies in memory as x does: torch.nn.grad.conv2d_input returns another layout.

    A training step of FocalNet-T takes 10 % longer with that, one of ConvNeXt-T 8 %.
    """
    geometry = ([1, 1], [pad, pad], [1, 1], False, [0, 0], len(weight))
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [True, False, False])[0]


@swaps("torch.nn.modules.pooling.MaxPool2d")
def max_pool(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """With the channels side by side, and a gradient that keeps the places of the maxima alone: torch's keeps the map.

    A stem's map is the largest of a network: 25 of the 756 MiB that a training step of ResNet-50 takes for 8 images.
    """
    if pool.return_indices or x.ndim != 4 or not by_hand(x):
        return type(pool).forward(pool, x)
    laid = x.contiguous(memory_format=torch.channels_last)
    if needs_gradient(x):
        sides = pool.kernel_size, pool.stride, pool.padding, pool.dilation
        geometry = [[side, side] if isinstance(side, int) else list(side) for side in sides]
        laid = _MaxPool.apply(laid, [*geometry, pool.ceil_mode])
    else:
        laid = type(pool).forward(pool, laid)
    return laid.contiguous() if x.is_contiguous() else laid


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: list[Any]) -> Tensor:
        maxima, places = _aten.max_pool2d_with_indices(x, *geometry)
        ctx.save_for_backward(places)
        ctx.geometry, ctx.layout = geometry, (x.shape, x.stride())
        return maxima

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        like = grad.new_empty_strided(*ctx.layout)  # nothing else is read of it
        return _aten.max_pool2d_with_indices_backward(grad, like, *ctx.geometry, places), None
