"""Non-maximum suppression with fixed shapes: what torchvision does image by image, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

NO_BOX = -1.0  # the score of a candidate that does not count; scores that count are at least 0


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Rows of each image: values (B, N, C) at places (B, K) -> (B, K, C)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def best_scores(scores: Tensor, count: int, none: float = NO_BOX) -> tuple[Tensor, Tensor]:
    """The `count` best scores of each row and their places, best first: (B, N) -> (B, count) twice, for any N.

    Where fewer are above `none`, the score is `none` and the place 0.
    """
    padded = F.pad(scores, (0, count), value=none)  # topk wants at least `count`
    best, places = padded.topk(count, dim=1)
    return best, places.masked_fill(best <= none, 0)


def best_boxes(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """Suppress boxes that overlap better ones of their image and group by more than `overlap` (IoU).

    boxes (B, N, 4) xyxy, not negative; scores and groups (B, N). Returns the scores and the places of the `count` best
    that remain, (B, count) each, best first; the score is `NO_BOX` where fewer remain. One call serves the whole
    batch: groups are moved apart in x, images in y, so that only boxes of one image and group meet.
    """
    side = boxes.max() + 1
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(groups)
    shifts = torch.stack([groups, images, groups, images], dim=2).to(boxes.dtype) * side
    flat, apart = scores.flatten(), (boxes + shifts).flatten(0, 1)
    candidates = (flat >= 0).nonzero()[:, 0]  # of any number; what remains is a mask, of fixed shape again
    remaining = candidates[nms(apart[candidates], flat[candidates], overlap)]
    kept = torch.zeros_like(flat).index_fill(0, remaining, 1.0).view_as(scores)
    return best_scores(torch.where(kept > 0, scores, NO_BOX), count)
