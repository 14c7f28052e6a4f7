"""Divide images into parts, class by class, the same on every machine and with every version of every library."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


def stratified(
    names: Sequence[str], labels: Sequence[int], fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Give each part its fraction of every class, at least one image; "train" gets the rest.

    An image's rank within its class is the hash of (seed, name), so that adding a file hardly moves the others. A
    class with no more images than there are fractions is in train, and in as many of the last parts as it can be.
    Returns the indices of each part in ascending order.
    """
    classes: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        classes.setdefault(label, []).append(index)
    parts: dict[str, list[int]] = {part: [] for part in ("train", *fractions)}
    for members in classes.values():
        members.sort(key=lambda index: hashlib.sha256(_bytes(f"{seed}:{names[index]}")).digest())
        start, spare = 0, len(members) - len(fractions)  # one image of each part is not to be had by another
        for part, fraction in fractions.items():
            count = min(max(1, round(fraction * len(members))), max(0, spare))
            parts[part] += members[start : start + count]
            start, spare = start + count, spare - count + 1
        parts["train"] += members[start:]
    return {part: sorted(indices) for part, indices in parts.items()}


def _bytes(name: str) -> bytes:
    """A name in UTF-8; a file may have a name that is none."""
    return name.encode(errors="surrogatepass")
