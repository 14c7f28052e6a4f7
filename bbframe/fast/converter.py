"""Swap the forwards of modules for faster ones, and undo it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bbframe.backbone_mixin import BackboneMixin
from bbframe.fast import probe
from bbframe.fast.pieces import stage_forward
from bbframe.fast.swaps import FORWARDS, class_name, holder, is_fast
from bbframe.layers.convolution import ConvNorm

N = TypeVar("N", bound=nn.Module)


def convert(net: N) -> N:
    """Give the modules of a network faster forwards, in place; types, parameters, names and hooks stay.

    Each forward asks at every call whether it may run, and leaves the rest to its class. Nothing happens where the
    environment says BBFRAME_FAST=0.
    """
    if not probe.ENABLED:
        return net
    probe.check_all()
    for module in net.modules():
        forward = FORWARDS.get(class_name(module))
        if forward is not None:
            _install(module, partial(forward, module))
    backbone: Any
    for backbone in net.modules():
        if isinstance(backbone, BackboneMixin):
            vars(backbone)["_apply"] = partial(_apply_and_follow, backbone)
            config = backbone.config
            cells = (config.num_channels * config.stages[0].stride ** 2, *config.num_features)
            for stage, cell in zip((backbone.stem, *backbone.stages), cells, strict=False):
                _install(stage, partial(stage_forward, stage, FORWARDS.get(class_name(stage)), cell))
    _lay_kernels(net, torch.channels_last)
    return net


def plain(net: N) -> N:
    """Undo `convert`, in place."""
    _remove(net)
    for module in net.modules():
        if isinstance(module, BackboneMixin):
            vars(module).pop("_apply", None)
    return net


def _remove(net: nn.Module) -> None:
    for module in net.modules():
        where = holder(module)
        if "forward" in vars(where) and is_fast(where.forward):
            del where.forward
    _lay_kernels(net, torch.contiguous_format)


def _apply_and_follow(net: BackboneMixin, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BackboneMixin:
    """The `_apply` of a converted backbone, which `.to(...)` calls: off the CPU its modules are plain.

    Replicas, which share what their original holds, would run the original's forwards there.
    """
    type(net)._apply(net, fn, recurse)  # type: ignore[attr-defined]
    if all(parameter.device.type == "cpu" for parameter in net.parameters()):  # type: ignore[attr-defined]
        return convert(net)  # type: ignore[type-var]
    _remove(net)  # type: ignore[arg-type]
    return net


def _install(module: nn.Module, forward: partial[object]) -> None:
    where = holder(module)
    if is_fast(vars(where).get("forward")):  # what somebody else gave to an instance stays
        where.forward = forward


def _lay_kernels(net: nn.Module, layout: torch.memory_format) -> None:
    """Put the kernels of convolutions with a norm where their maps want them, values and parameters the same."""
    for module in net.modules():
        if isinstance(module, ConvNorm) and type(module.conv) is nn.Conv2d:
            module.conv.weight.data = module.conv.weight.data.contiguous(memory_format=layout)
