"""A few rows, or a few images, at a time: what is made of them then stays in a CPU's cache.

A whole batch goes through memory between any two operations, and what is larger than 32 MB comes from the system anew
each time, page by page. On two cores of a Zen 4 the perceptron of ConvNeXt-T's first stage takes 22 instead of 34 ms
for 8 images, its products alone 19. What is kept for a gradient goes through memory anyway: `by_rows` and `by_images`
do nothing then, and a perceptron, which keeps little, takes its `row_count` for itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bbframe.layers.once import computed_once

_ROWS = 1536  # a thread; 1024 to 2048 are equally fast, fewer make thin products
_ROWS_OF_IMAGES = 6144  # a thread; of 768 to 12,288 the fastest for a whole stage, by 5 to 15 %, and in bfloat16


def row_count() -> int:
    """How many rows at a time."""
    return _ROWS * torch.get_num_threads()


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a function of the rows of x, (..., C) -> (..., C_out), a few rows at a time where that pays."""
    if not _pays(x) or x.shape[:-1].numel() <= row_count():
        return function(x)
    rows = x.shape[:-1]
    pieces = x.flatten(0, -2).tensor_split(-(-rows.numel() // row_count()))
    with computed_once():
        return torch.cat([function(piece) for piece in pieces]).unflatten(0, rows)


def by_images(module: nn.Module, x: Tensor, rows: int) -> Tensor:
    """module(x) for a module that treats each image of x, (B, ...), alone in eval mode; as `by_rows`.

    An image enters it as so many rows.
    """
    if not _pays(x) or any(part.training for part in module.modules()):
        return module(x)
    count = max(1, _ROWS_OF_IMAGES * torch.get_num_threads() // max(rows, 1))
    if len(x) <= count:
        return module(x)
    pieces = x.tensor_split(-(-len(x) // count))
    with computed_once():
        return torch.cat([module(images) for images in pieces])


def _pays(x: Tensor) -> bool:
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled()
    return not watched and x.device.type == "cpu"
