"""What a network costs: parameters, multiply-accumulates, memory, time."""

from __future__ import annotations

import contextlib
import math
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary

from bbframe.auto import Backbone

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # up to torch 2.7 it counts as nothing
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def count_parameters(module: nn.Module) -> int:
    """All parameters, trainable or frozen, a shared one once."""
    return sum(p.numel() for p in module.parameters())


def gmacs(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiply-accumulates, in 1e9, of the products and convolutions of one forward pass over one image.

    shape: (C, H, W) of the image. Runs the module once where it is, in eval mode; every training flag, and the buffers
    with them, are as before afterwards.
    """
    like = next(module.parameters(), torch.zeros(()))
    with _counting(module) as counter:
        module(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
    return counter.get_total_flops() / 2e9


def stage_gmacs(net: Backbone, image: Tensor) -> list[float]:
    """`gmacs` of each stage of a backbone, the stem first; their sum is that of the whole.

    What belongs to no stage counts as its parameters do. Raises ValueError for a network of timm whose parameters have
    no stage.
    """
    stages = net.parameter_stages()
    stage_of = {id(parameter): stages[name] for name, parameter in net.named_parameters()}
    counted, seen = [0] * net.num_built, 0
    inside = [net.num_built - 1]  # the stages of the modules that run, the innermost last

    def settle() -> None:
        nonlocal seen
        total = counter.get_total_flops()
        counted[inside[-1]] += total - seen
        seen = total

    def enter(stage: int) -> None:
        settle()
        inside.append(stage)

    def leave() -> None:
        settle()
        inside.pop()

    hooks = []
    for module in net.modules():
        owners = {stage_of[id(parameter)] for parameter in module.parameters()}
        if len(owners) == 1:  # others, such as an activation, count with what calls them
            (stage,) = owners
            hooks.append(module.register_forward_pre_hook(lambda *_, stage=stage: enter(stage)))
            hooks.append(module.register_forward_hook(lambda *_: leave()))
    try:
        with _counting(net) as counter:
            net(image)
            settle()
    finally:
        for hook in hooks:
            hook.remove()
    return [flops / 2e9 for flops in counted]


@contextmanager
def _counting(module: nn.Module) -> Iterator[FlopCounterMode]:
    """Count the operations of forward passes, in eval mode and without gradients."""
    training = {child: child.training for child in module.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention's fused operation counts as nothing
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_FLOPS) as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for child, flag in training.items():
            child.training = flag


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    """Called with the shapes in the place of the tensors of one call of CPU_ATTENTION."""
    return sdpa_flop_count(query, key, value)


def _product_flops(x: Any, weight: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    """Called in the same way for oneDNN's linear layers."""
    return 2 * math.prod(out_shape) * weight[-1]


def _convolution_flops(x: Any, *shapes: Any, out_shape: Any, **options: Any) -> int:
    """Called in the same way for oneDNN's convolutions; one that adds a residual has it before its weight."""
    weight = shapes[1] if list(shapes[0]) == list(out_shape) and len(shapes[1] or ()) == 4 else shapes[0]
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_FLOPS: dict[Any, Any] = {CPU_ATTENTION: _attention_flops}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _FLOPS[torch.ops.mkldnn._linear_pointwise] = _product_flops
    _FLOPS[torch.ops.mkldnn._convolution_pointwise] = _convolution_flops


def reset_peak_memory() -> None:
    """Begin a new peak, so that a run does not report that of an earlier one in this process (on Linux and CUDA)."""
    with contextlib.suppress(OSError):  # not Linux, or a container that forbids it: the process's own peak remains
        CLEAR_REFS.write_text("5")
    if torch.cuda.is_initialized():  # else there is no peak yet, and a run on the CPU opens no GPU
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """The most memory in use since `reset_peak_memory`: of the GPU where one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(peak.group(1)) * 1024
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss if sys.platform == "darwin" else peak_rss * 1024


def forward_memory_bytes(net: nn.Module, image: Tensor) -> int:
    """The most memory that tensors occupy at one time of a forward pass: weights, image, activations.

    On a GPU it is what torch had to allocate there, with the workspaces of its libraries. On a CPU the tensors are
    followed; what an operation takes for itself is not among them.
    """
    with torch.no_grad():
        if image.is_cuda:
            reset_peak_memory()
            net(image)
            return torch.cuda.max_memory_allocated()
        with _LiveTensors([*net.parameters(), *net.buffers(), image]) as live:
            net(image)
        return live.peak


class _LiveTensors(TorchDispatchMode):
    """Follow the storages that operations return for as long as something holds them; `peak` in bytes."""

    def __init__(self, before: list[Tensor]):
        super().__init__()
        self.sizes, self.peak = WeakIdKeyDictionary(), 0
        self._follow(before)

    def _follow(self, tensors: Any) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.sizes[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self.sizes.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._follow(out)
        return out


def forward_seconds(net: nn.Module, image: Tensor, patience: float = 2.0) -> list[float]:
    """What forward passes take after one to warm up: at least 3, at most 50, about `patience` seconds in all."""
    seconds: list[float] = []
    with torch.inference_mode():
        net(image)
        while len(seconds) < 3 or (len(seconds) < 50 and sum(seconds) < patience):
            seconds.append(_timed(net, image))
    return seconds


def _timed(net: nn.Module, image: Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    net(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
