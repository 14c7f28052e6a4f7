"""Position tables at any size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize absolute positions (1, S * S, C), learned on a square grid, to (1, H * W, C) by bicubic interpolation.

    By size, never by a scale factor, and in float32: a half-precision result would shift the positions. At the size
    of the table this is the identity, so that no branch depends on the size of the input.
    """
    _, count, channels = table.shape
    side = round(count**0.5)
    image = table.view(1, side, side, channels).permute(0, 3, 1, 2)
    resized = F.interpolate(image.float(), size=grid, mode="bicubic", align_corners=False).to(table.dtype)
    return resized.flatten(2).transpose(1, 2)
