"""Swap the forwards of modules for faster ones, and undo it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bbframe.backbone_mixin import BackboneMixin
from bbframe.fast import probe
from bbframe.fast.probe import by_hand, computed_once
from bbframe.layers.convolution import ConvNorm
from bbframe.layers.recompute import Recomputed

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", bound=nn.Module)
FORWARDS: dict[str, Callable[..., Any]] = {}  # by the module and the name of the class: ours are not imported
_ROWS_OF_IMAGES = 6144  # a thread; of 768 to 12,288 the fastest for a whole stage, by 5 to 15 %, and in bfloat16
# what treats each image of a batch alone in evaluation, of torch's; all of our layers and models do
_ALONE = {nn.Conv2d, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.MaxPool2d, nn.Identity, nn.Sequential}
_ALONE |= {nn.ReLU, nn.GELU, nn.SiLU, nn.SELU, nn.ModuleList}


def swaps(name: str) -> Callable[[F], F]:
    """Let a function of a module and its inputs stand for the forward of exactly one class, "module.Class"."""

    def add(function: F) -> F:
        FORWARDS[name] = function
        return function

    return add


def convert(net: N) -> N:
    """Give the modules of a network faster forwards, in place; types, parameters, names and hooks stay.

    Each forward asks at every call whether it may run, and leaves the rest to its class. Nothing happens where the
    environment says BBFRAME_FAST=0.
    """
    if not probe.ENABLED:
        return net
    probe.check_all()
    for module in net.modules():
        forward = _forward_for(module)
        if forward is not None:
            _install(module, partial(forward, module))
    backbone: Any
    for backbone in net.modules():
        if isinstance(backbone, BackboneMixin):
            vars(backbone)["_apply"] = partial(_apply_and_follow, backbone)
            config = backbone.config
            cells = (config.num_channels * config.stages[0].stride ** 2, *config.num_features)
            for stage, cell in zip((backbone.stem, *backbone.stages), cells, strict=False):
                _install(stage, partial(stage_forward, stage, _forward_for(stage), cell))
    _lay_kernels(net, torch.channels_last)
    return net


def plain(net: N) -> N:
    """Undo `convert`, in place."""
    _remove(net)
    for module in net.modules():
        if isinstance(module, BackboneMixin):
            vars(module).pop("_apply", None)
    return net


def unheard(*modules: nn.Module) -> bool:
    """Whether modules compute what their classes say and nobody listens: neither hooks nor a forward of its own."""
    return all(
        not (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)
        and _is_fast(vars(_holder(m)).get("forward"))
        for m in modules
    )


def stage_forward(stage: nn.Module, fast: Callable[..., Any] | None, cell: int, x: Tensor, *rest: Any) -> Any:
    """A stage's own forward, or its fast one, of a few images of x (B, ...) at a time; a row holds `cell` numbers.

    What is made of a few images stays in a CPU's cache. A whole batch goes through memory between any two operations,
    as does what is kept for a gradient: nothing is cut then.
    """
    forward = partial(fast or type(stage).forward, stage)
    if rest or torch.is_grad_enabled() or not by_hand(x):
        return forward(x, *rest)
    rows = max(1, x.numel() // max(1, len(x) * cell))
    count = max(1, _ROWS_OF_IMAGES * torch.get_num_threads() // rows)
    if len(x) <= count or not all(map(_treats_images_alone, stage.modules())):
        return forward(x)
    with computed_once():
        return torch.cat([forward(images) for images in x.tensor_split(-(-len(x) // count))])


def _treats_images_alone(module: nn.Module) -> bool:
    kind = type(module)
    ours = kind.__module__.startswith(("bbframe.layers.", "bbframe.models."))
    statistics = kind is nn.BatchNorm2d and module.running_mean is not None
    return not module.training and (ours or kind in _ALONE or statistics) and unheard(module)


def _forward_for(module: nn.Module) -> Callable[..., Any] | None:
    return FORWARDS.get(f"{type(module).__module__}.{type(module).__qualname__}")


def _holder(module: nn.Module) -> Any:
    """Where the forward of an instance is set: on what computes a block again, or on the module."""
    forward = vars(module).get("forward")
    return forward if isinstance(forward, Recomputed) else module


def _is_fast(forward: Any) -> bool:
    """Whether the forward of an instance is none, or one of these."""
    return forward is None or getattr(getattr(forward, "func", None), "__module__", "").startswith("bbframe.fast.")


def _install(module: nn.Module, forward: partial[object]) -> None:
    where = _holder(module)
    if _is_fast(vars(where).get("forward")):  # what somebody else gave to an instance stays
        where.forward = forward


def _remove(net: nn.Module) -> None:
    for where in map(_holder, net.modules()):
        if "forward" in vars(where) and _is_fast(where.forward):
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


def _lay_kernels(net: nn.Module, layout: torch.memory_format) -> None:
    """Put the kernels of convolutions with a norm where their maps want them, values and parameters the same."""
    for module in net.modules():
        if isinstance(module, ConvNorm) and type(module.conv) is nn.Conv2d:
            module.conv.weight.data = module.conv.weight.data.contiguous(memory_format=layout)
