"""The combinations of the values that overrides list, in Hydra's grammar."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import RangeSweep
from hydra.errors import OverrideParseException

from bbframe.app.command_line import parsed_value, readable
from bbframe.app.composition_errors import unreadable
from bbframe.schema import nearest

MOST_RUNS = 10_000  # of one sweep; a file that names a billion values shall not fill the memory


def _length(span: RangeSweep) -> float:
    """How many numbers range(start, stop, step) names, about."""
    return abs(((span.stop or 0) - (span.start or 0)) / (span.step or 1))


def expand(overrides: Sequence[str], loader: Any = None) -> list[list[str]]:
    """Every combination of the values that the overrides list; `a=1,2` has two, `a=[1,2]` is one.

    `loader` finds what glob(...) matches. Raises ValueError for an interval, which has no list of values.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ValueError(unreadable(error)) from error
    axes = []
    for override in parsed:
        line = override.input_line or ""
        if override.is_interval_sweep():
            raise ValueError(
                f"{line}: an interval is for a search; add hydra.sweeper.trials=30, or list values to run, such as "
                f"{override.get_key_element()}=0.001,0.01 or range(1,4)"
            )
        if override.is_sweep_override():
            span = override.value()
            if isinstance(span, RangeSweep) and _length(span) > MOST_RUNS:
                raise ValueError(f"{line} names more than {MOST_RUNS} values; list fewer")
            values = list(override.sweep_string_iterator())
            if not values:
                raise ValueError(f"{line} matches nothing{nearest(line, [])}")
            axes.append([readable(f"{override.get_key_element()}={value}", False) for value in values])
        else:
            axes.append([line])
    if (count := math.prod(map(len, axes))) > MOST_RUNS:
        raise ValueError(f"these values make {count} runs, and a sweep has at most {MOST_RUNS}; list fewer values")
    return [list(combination) for combination in itertools.product(*axes)]


def with_ends(overrides: Sequence[str]) -> list[str]:
    """The overrides with the lower end of an interval in its place."""
    parsed = ((override, parsed_value(override)) for override in overrides)
    return [
        f"{p.get_key_element()}={p.value().start}" if p is not None and p.is_interval_sweep() else override
        for override, p in parsed
    ]
