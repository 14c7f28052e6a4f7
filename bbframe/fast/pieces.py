"""A few rows, or a few images, at a time: what is made of them then stays in a CPU's cache.

A whole batch goes through memory between any two operations, and what is larger than 32 MB comes from the system anew
each time, page by page. On two cores of a Zen 4 the perceptron of ConvNeXt-T's first stage takes 22 instead of 34 ms
for 8 images, its products alone 19. What is kept for a gradient goes through memory anyway: nothing is cut then, but
for a perceptron, which keeps little.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bbframe.fast.probe import by_hand, computed_once, once
from bbframe.fast.swaps import swaps, unheard

_ROWS = 1536  # a thread; 1024 to 2048 are equally fast, fewer make thin products
_ROWS_OF_IMAGES = 6144  # a thread; of 768 to 12,288 the fastest for a whole stage, by 5 to 15 %, and in bfloat16
# what treats each image of a batch alone in evaluation, of torch's; all of our layers and models do
_ALONE = {
    nn.Conv2d,
    nn.Linear,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.Dropout,
    nn.MaxPool2d,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.SELU,
}
_ALONE |= {nn.Identity, nn.Sequential, nn.ModuleList}


def row_count() -> int:
    """How many rows at a time."""
    return _ROWS * torch.get_num_threads()


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a function of the rows of x, (..., C) -> (..., C_out), a few rows at a time where that pays."""
    rows = x.shape[:-1]
    if torch.is_grad_enabled() or not by_hand(x) or rows.numel() <= row_count():
        return function(x)
    pieces = x.flatten(0, -2).tensor_split(-(-rows.numel() // row_count()))
    with computed_once():
        return torch.cat([function(piece) for piece in pieces]).unflatten(0, rows)


def stage_forward(stage: nn.Module, fast: Callable[..., Any] | None, cell: int, x: Tensor, *rest: Any) -> Any:
    """A stage's own forward, or its fast one, of a few images of x (B, ...) at a time; a row holds `cell` numbers."""
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


@swaps("bbframe.models.swinv2.PositionBias")
def position_bias(bias: nn.Module, offsets: Tensor, index: Tensor) -> Tensor:
    """Once for all pieces of a batch."""
    return once(bias, lambda: type(bias).forward(bias, offsets, index))
