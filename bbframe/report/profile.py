"""What a network costs: parameters, multiply-accumulates, memory and time."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary

from bbframe.backbone import Backbone

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch counts it from 2.8 on
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def count_parameters(module: nn.Module) -> int:
    """The number of parameters, trainable and frozen; a shared one counts once."""
    return sum(p.numel() for p in module.parameters())


def gmacs(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiply-accumulates, in 1e9, of the matrix products and convolutions in a forward pass over one image.

    shape: (C, H, W) of the image. The module runs once on its own device in eval mode, so its buffers do not change;
    its training flags are restored.
    """
    like = next(module.parameters(), torch.zeros(()))
    with _counting(module) as counter:
        module(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
    return counter.get_total_flops() / 2e9


def stage_gmacs(net: Backbone, image: Tensor) -> list[float]:
    """`gmacs` of each stage of a backbone, the stem first; they add up to the `gmacs` of the backbone.

    A module counts for the stage that its parameters belong to; operations outside all such modules count for the last
    stage. Raises ValueError for a timm network whose parameters belong to no stage.
    """
    stages = net.parameter_stages()
    stage_of = {id(parameter): stages[name] for name, parameter in net.named_parameters()}
    with _counting(net) as counter:
        net(image)
    by_module = counter.get_flop_counts()
    counted, inside = [0] * net.num_built, set()
    for name, module in net.named_modules():  # parents come before their children
        owners = {stage_of[id(parameter)] for parameter in module.parameters()}
        if name.rpartition(".")[0] in inside:
            inside.add(name)  # counted with its parent
        elif len(owners) == 1:
            inside.add(name)
            counted[owners.pop()] += sum(by_module.get(f"{type(net).__name__}.{name}", {}).values())
    counted[-1] += counter.get_total_flops() - sum(counted)
    return [flops / 2e9 for flops in counted]


@contextmanager
def _counting(module: nn.Module) -> Iterator[FlopCounterMode]:
    """Count the operations of forward passes in eval mode without gradients, then restore the training flags."""
    training = {child: child.training for child in module.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval().requires_grad_(False)  # the counter would hook parameters that modules are called with
    torch.backends.mha.set_fastpath_enabled(False)  # torch does not count nn.MultiheadAttention's fused operation
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention_flops}) as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for child, flag in training.items():
            child.training = flag
        for parameter in learning:
            parameter.requires_grad_()


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    """The operations of CPU_ATTENTION, whose tensors arrive as their shapes."""
    return sdpa_flop_count(query, key, value)


def reset_peak_memory() -> None:
    """Forget the peak of an earlier run in this process (on Linux and CUDA)."""
    with suppress(OSError):  # other systems and some containers keep the peak of the whole process
        CLEAR_REFS.write_text("5")
    if torch.cuda.is_initialized():  # else there is no peak yet, and a run on the CPU opens no GPU
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """The most memory used since `reset_peak_memory`: GPU memory if a GPU is in use, else this process's memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(peak.group(1)) * 1024
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss if sys.platform == "darwin" else peak_rss * 1024


def forward_memory_bytes(net: nn.Module, image: Tensor) -> int:
    """The most memory that weights, image and activations occupy at one time of a forward pass.

    On a GPU it is the memory that torch allocates, with the workspaces of its libraries. On a CPU it is the size of
    the tensors, without what an operation allocates for its own use.
    """
    with torch.no_grad():
        if image.is_cuda:
            reset_peak_memory()
            net(image)
            return torch.cuda.max_memory_allocated()
        with LiveTensors([*net.parameters(), *net.buffers(), image]) as live:
            net(image)
        return live.peak


class LiveTensors(TorchDispatchMode):
    """Add up the sizes of the storages that operations return while something holds them; `peak` in bytes."""

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
    """The seconds of each of 3 to 50 forward passes, about `patience` seconds in all, after one to warm up."""
    seconds: list[float] = []
    with torch.inference_mode():
        net(image)
        while len(seconds) < 3 or (len(seconds) < 50 and sum(seconds) < patience):
            _wait_for_gpu(image)
            started = time.perf_counter()
            net(image)
            _wait_for_gpu(image)
            seconds.append(time.perf_counter() - started)
    return seconds


def latency(module: nn.Module, shape: tuple[int, ...], device: torch.device, patience: float = 0.2) -> float:
    """The median seconds of a forward pass over one image (C, H, W) on a device, in eval mode, without autocast.

    It measures for about `patience` seconds. The module then is where it was, and its training flags are restored.
    """
    like = next(module.parameters(), torch.zeros(()))
    flags = {part: part.training for part in module.modules()}
    module.eval().to(device)
    try:
        image = torch.zeros(1, *shape, device=device, dtype=like.dtype)
        return statistics.median(forward_seconds(module, image, patience))
    finally:
        module.to(like.device)
        for part, training in flags.items():
            part.training = training


def _wait_for_gpu(image: Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize()
