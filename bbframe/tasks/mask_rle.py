"""Masks as COCO's run-length encoding, which takes a thousandth of the memory (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# {"size": [height, width], "counts": text}: the lengths of the runs down the columns, packed into text as COCO does
RLE = dict[str, Any]


def encode_mask(mask: Tensor) -> RLE:
    """The run-length encoding of a mask (H, W)."""
    from faster_coco_eval.core import mask as coco

    counts = coco.encode(np.asfortranarray(mask.to("cpu", torch.uint8).numpy()))["counts"]
    return {"size": [*mask.shape], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def decode_mask(rle: RLE) -> Tensor:
    """The mask (H, W) bool of a run-length encoding."""
    from faster_coco_eval.core import mask as coco

    return torch.from_numpy(np.ascontiguousarray(coco.decode({**rle, "counts": rle["counts"].encode()}))).bool()
