"""What a network costs: parameters, multiply-accumulates, memory."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

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
    image = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
    training = {child: child.training for child in module.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention_flops})
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention's fused operation counts as nothing
    try:
        with torch.no_grad(), counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for child, flag in training.items():
            child.training = flag
    return counter.get_total_flops() / 2e9


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    """Called with the shapes in the place of the tensors of one call of CPU_ATTENTION."""
    return sdpa_flop_count(query, key, value)


def reset_peak_memory() -> None:
    """Begin a new peak, so that a run does not report that of an earlier one in this process (on Linux and CUDA)."""
    with contextlib.suppress(OSError):  # not Linux, or a container that forbids it: the process's own peak remains
        CLEAR_REFS.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """The most memory in use since `reset_peak_memory`: of the GPU where one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(peak.group(1)) * 1024
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss if sys.platform == "darwin" else peak_rss * 1024
