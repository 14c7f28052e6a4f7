"""Which maps a detector reads and which pyramid stands on them; light, so that errors come at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def nearest_strides(wanted: Sequence[int], declared: Sequence[int]) -> list[int]:
    """Of the strides of a backbone's stages, the nearest to each of those `wanted`, rising, each once.

    Nearness is measured by the ratio; of two equally near strides, the coarser one counts.
    """
    return sorted({min(declared, key=lambda s: (abs(math.log2(s / stride)), -s)) for stride in wanted})


def choose_pyramid(name: str | None, strides: Sequence[int], declared: Sequence[int] = ()) -> str:
    """The pyramid for maps of these strides: "simple" for maps of one stride, else "fpn", unless `name` says so.

    `declared` are the strides of all stages of the backbone. Raises ValueError for maps on which a feature pyramid
    cannot stand, and for several maps of one stride where the backbone has others.
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
