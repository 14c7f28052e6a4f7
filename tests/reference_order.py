"""Where transformers computes something else than the paper: what makes our maps comparable with its."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bbframe.schema import pair


def in_the_order_of_transformers(net: Any) -> Any:
    """The same backbone, whose blocks see the tokens in the order that transformers' backbone gives them.

    HieraModel reorders the tokens of the stem so that units are contiguous, as Hiera's authors do; HieraBackbone does
    not, and takes its rows for units. Its maps are ours of a map with other places.
    """
    if net.config.model_type == "hiera":
        steps, stride = len(net.config.depths) - 1, net.config.query_stride
        net.stem.register_forward_hook(lambda _, inputs, x: _places_of_rows(x, steps, stride))
    return net


def runs_in_transformers(config: Any) -> bool:
    """Whether transformers' Hiera runs a configuration, on images of its own size, and attends in square units."""
    side = config.query_stride ** (len(config.depths) - 1)
    patches = zip(pair(config.image_size), pair(config.patch_size), pair(config.patch_padding), strict=True)
    grid = tuple((size + 2 * padding - patch) // config.patch_stride + 1 for size, patch, padding in patches)
    return grid == config.grid and not any(count % side for count in grid) and config.masked_unit_size == side


def _places_of_rows(x: Tensor, steps: int, stride: int) -> Tensor:
    """Where the places of a map (B, H, W, C), row by row, lie when they are taken for units: (B, H, W, C)."""
    B, H, W, C = x.shape
    rows, columns = H // stride**steps, W // stride**steps
    # the offsets inside the smallest group come first, the units last
    x = x.reshape(B, *(stride for _ in range(2 * steps)), rows, columns, C)
    down = [2 * steps + 1, *range(2 * steps - 1, 0, -2)]
    across = [2 * steps + 2, *range(2 * steps, 0, -2)]
    return x.permute(0, *down, *across, 2 * steps + 3).reshape(B, H, W, C)
