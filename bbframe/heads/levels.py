"""What detectors ask of maps and options; light, so that a configuration is checked in no time."""

from __future__ import annotations

import math
from collections.abc import Sequence

ONE_STAGE, TWO_STAGE = (8, 16, 32), (4, 8, 16, 32)
WANTED = {"fcos": ONE_STAGE, "retinanet": ONE_STAGE, "faster_rcnn": TWO_STAGE, "mask_rcnn": TWO_STAGE}
WITH_MASKS = frozenset({"mask_rcnn"})  # these predict masks, and learn from them


def wanted_strides(name: str, declared: Sequence[int]) -> list[int]:
    """Of the strides of a backbone's stages, those that a detector reads unless told otherwise, rising.

    They are the nearest to what it looks for, by their ratio, each once; of two equally near, the coarser.
    """
    return sorted({min(declared, key=lambda s: (abs(math.log2(s / wanted)), -s)) for wanted in WANTED[name]})


def check_detector(name: str, channels: int, num_convs: int) -> None:
    """Refuse, by ValueError, a width or a depth that the detector of that name cannot have."""
    if name == "fcos" and channels % 32:
        near = max(round(channels / 32), 1) * 32
        raise ValueError(
            f"head: channels={channels} must be a multiple of 32 for fcos, whose norms have 32 groups; "
            f"the nearest is {near}"
        )
    if name.endswith("rcnn") and num_convs != 4:
        raise ValueError(
            f"head: num_convs={num_convs} is the depth of the towers of fcos and retinanet; R-CNNs have none: "
            "leave it out"
        )


def choose_pyramid(name: str | None, strides: Sequence[int], declared: Sequence[int] = ()) -> str:
    """The pyramid for maps of these strides: "simple" for maps of one stride, else "fpn", unless `name` says so.

    `declared` are the strides of all stages of the backbone. Raises ValueError for maps on which a feature pyramid
    cannot stand, and for several of one stride where there are others.
    """
    same = len(strides) > 1 and len(set(strides)) == 1 and len(set(declared)) > 1
    name = name or ("simple" if len(set(strides)) == 1 and not same else "fpn")
    if name == "fpn" and list(strides) != sorted(set(strides)):
        raise ValueError(
            f"head: pyramid=fpn takes maps of rising strides, not {list(strides)}; select one map a stride, "
            f"backbone.out_strides={sorted(set(declared or strides))}, or head.pyramid=simple, which reads the last "
            "map alone"
        )
    return name
