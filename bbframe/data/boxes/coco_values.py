"""Numbers, ids and sizes as the tools that write COCO's JSON spell them."""

from __future__ import annotations

from typing import Any, TypeGuard


def whole(value: Any) -> Any:
    """A number such as 1.0, which some tools write for 1, as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def integer(value: Any) -> Any:
    """As `whole`, also of text."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else whole(value)


def real(value: Any) -> Any:
    """The number that a text holds; anything else as it is."""
    if not isinstance(value, str) or len(value) > 40 or "_" in value:
        return value
    try:
        return float(value)
    except ValueError:
        return value


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether it can be the id of an entry."""
    return type(value) in (int, str)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that pixels can have, so not NaN."""
    return type(value) in (int, float) and abs(value) < 1e9


def is_side(value: Any) -> TypeGuard[int]:
    """Whether it is the width or height of an image."""
    return type(value) is int and 0 < value < 10**6
