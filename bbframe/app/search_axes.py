"""The space of a search, from overrides in Hydra's grammar: interval(...), range(...), choice(...), glob(...), a,b."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import OverrideParseException

from bbframe.app.command_line import key_of, readable
from bbframe.app.composition_errors import unreadable
from bbframe.schema import nearest
from bbframe.sweep.search_space import Choices, Domain, Space, Span, as_override

TAGS = ("log", "int")
MOST_CHOICES = 1000  # values of a list


def search_axes(overrides: Sequence[str], loader: Any = None) -> tuple[Space, list[str]]:
    """The space that some overrides span, and the other overrides. Raises ValueError in one line."""
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ValueError(unreadable(error)) from error
    space: dict[str, Domain] = {}
    fixed = []
    for override in parsed:
        if not override.is_sweep_override():
            fixed.append(override.input_line or "")
        elif key_of(str(override.input_line)) == "seed":
            raise ValueError(
                f"{override.input_line}: a search over seeds finds the luckiest one; give one seed, then repeat the "
                "best settings with -m seed=1,2,3"
            )
        else:
            space[override.get_key_element()] = _domain(override)
    if not space:
        raise ValueError(
            "hydra.sweeper.trials searches among values; name some, such as 'optim.lr=tag(log, interval(1e-5, 1e-2))'"
        )
    return space, fixed


def _domain(override: Override) -> Domain:
    line, value = override.input_line, override.value()
    if isinstance(value, (IntervalSweep, RangeSweep)):
        tags = set(value.tags)
        if unknown := tags - set(TAGS):
            raise ValueError(f"{line}: unknown tag {min(unknown)!r}{nearest(min(unknown), TAGS)}")
        if isinstance(value, IntervalSweep):
            return _interval(str(line), value, tags)
        if not value.shuffle:
            return _range(str(line), value, tags)
    key = override.get_key_element()
    values = (readable(f"{key}={text}", False).partition("=")[2] for text in override.sweep_string_iterator())
    texts = list(dict.fromkeys(values))
    if not texts:
        raise ValueError(f"{line} matches nothing")
    return Choices(tuple(texts))


def _interval(line: str, value: IntervalSweep, tags: set[str]) -> Span:
    low, high = float(value.start or 0), float(value.end or 0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{line}: the ends of an interval must be numbers, such as interval(0.001, 0.1)")
    if not low < high:
        raise ValueError(f"{line}: the interval must rise; write interval({min(low, high):g}, {max(low, high):g})")
    if "log" in tags and low <= 0:
        raise ValueError(
            f"{line}: a logarithmic scale begins above 0; write tag(log, interval({high / 1000:g}, {high:g}))"
        )
    return Span(low, high, "log" in tags, "int" in tags or isinstance(value.start, int))


def _range(line: str, value: RangeSweep, tags: set[str]) -> Domain:
    start, stop, step = value.start or 0, value.stop or 0, value.step or 1
    count = max(0, math.ceil((stop - start) / step))
    if count == 0:
        raise ValueError(f"{line} names no value")
    if count == 1 or "log" in tags:
        if count > MOST_CHOICES:
            raise ValueError(
                f"{line} names more than {MOST_CHOICES} values; write tag(log, interval({start}, {stop}))"
            )
        return Choices(tuple(map(str, value.range())))
    low, high = sorted((start, start + (count - 1) * step))
    return Span(low, high, whole=isinstance(start, int) and isinstance(step, int), step=abs(step))


def first_point(space: Space) -> list[str]:
    """The overrides of one point of a space."""
    return [
        as_override(key, domain.values[0] if isinstance(domain, Choices) else domain.lowest)
        for key, domain in space.items()
    ]
