"""Plain data into typed options: every unknown key, wrong type and bad choice is named before anything is built."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers that a field may be, in their unit; stands beside the type: `Annotated[int, Range(1, 9, "pixels")]`.

    An open end is left out itself.
    """

    low: float
    high: float
    unit: str = ""
    _: KW_ONLY
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether the range has this number; it never has nan."""
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        ends = f"within {self.low}..{self.high}"
        if self.low_open or self.high_open:
            low, high = "above" if self.low_open else "at least", "below" if self.high_open else "at most"
            ends = f"{low} {self.low} and {high} {self.high}"
        return f"{ends} {self.unit}".rstrip()


@dataclass(frozen=True)
class Length:
    """How many values a list may have."""

    low: int
    high: int

    def holds(self, value: Sequence[Any]) -> bool:
        """Whether a list has as many values."""
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"({self.low}..{self.high} values)"


@dataclass(frozen=True)
class Text:
    """What a text may be: never empty, no control characters, and `pattern` matches all of it, as `said` describes."""

    said: str = "not empty"
    pattern: str = ".{1,4096}"

    def holds(self, value: str) -> bool:
        """Whether a text is so."""
        plain = value.strip() and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value)
        return bool(plain and re.fullmatch(self.pattern, value))

    def __str__(self) -> str:
        return f"({self.said})"


# the constraints that many fields share
Name = Annotated[str, Text()]  # a name or a path
Rate = Annotated[float, Range(0, 1, high_open=True)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Pixels = Annotated[int, Range(1, 16384, "pixels")]  # a side of an image
Sides = Pixels | tuple[Pixels, Pixels]  # a square's, or height and width
Seed = Annotated[int, Range(0, 2**32 - 1)]


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the closest known name, or, when none is close, the menu (12 names at most)."""
    names = sorted(known)
    close = difflib.get_close_matches(printable(name).strip("'\""), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"; choose from: {', '.join(names[:12])}{more}" if names else "; it takes none"


def printable(value: object) -> str:
    """A value in an error message: one line of a bearable length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-50:]}"


def demand(ok: bool, option: str, value: object, rule: str) -> None:
    """Raise the ValueError that names an option, such as "optim: lr", its value and the rule that it breaks."""
    if not ok:
        raise ValueError(f"{option}={printable(value)} {rule}")


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of what may be given as one number for both."""
    return (value, value) if isinstance(value, int) else value


def whole_number(name: str, value: Any) -> int:
    """A whole number above 0, of Python or numpy; ValueError, which names the argument, for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number above 0")
    return int(value)


def parse(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build the options dataclass `cls` from plain data.

    `where` names the data in errors, such as "optim". Raises ValueError for an unknown key, a wrong type, a value
    outside a Literal, and whatever the class itself refuses.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={printable(data)} must be a mapping")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ValueError(f"{where}: unknown option {key!r}{nearest(key, fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} must be given")
    hints, prefix = type_hints(cls), getattr(cls, "prefix", f"{where}: ")
    return cls(**{key: checked_value(value, hints[key], f"{prefix}{key}") for key, value in data.items()})


class Options:
    """Base of options dataclasses: the fields are checked however the object is made.

    `prefix` comes before a field's name in errors.
    """

    prefix: ClassVar[str]

    def __post_init__(self) -> None:
        for name, hint in type_hints(type(self)).items():
            object.__setattr__(self, name, checked_value(getattr(self, name), hint, f"{self.prefix}{name}"))


def type_hints(cls: Any, constraints: bool = True) -> Mapping[str, Any]:
    """The resolved annotations of a dataclass, with their constraints or without, class variables left out."""
    return _type_hints(cls, constraints)


@cache
def _type_hints(cls: Any, constraints: bool) -> Mapping[str, Any]:
    hints = get_type_hints(cls, include_extras=constraints)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def checked_value(value: Any, hint: Any, where: str) -> Any:
    """Check `value` against a type hint; lists become tuples where the hint says so, integers become floats.

    `Annotated[T, Range(...)]` allows some values of the type alone, `Annotated[T, read]` leaves the value to
    `read(value, where)`. No number is nan or infinite. Raises ValueError that starts with `where`, and says what was
    expected and what was given.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        for number in _numbers(value):
            checked_value(number, float, where)
        return value
    if origin is Annotated:
        return _checked_annotated(value, hint, where)
    if origin in (Union, types.UnionType):
        return _checked_union(value, args, where)
    if origin is Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise ValueError(f"{where}={printable(value)}{nearest(value, map(str, args))}")
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and args[-1] is not Ellipsis
        if isinstance(value, str) or not isinstance(value, Sequence) or (fixed and len(value) != len(args)):
            raise ValueError(f"{where}={printable(value)} must be {spell(hint)}")
        items = [checked_value(v, args[i if fixed else 0], f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}={printable(value)} must be {spell(hint)}")
        return {str(k): checked_value(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else parse(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        raise ValueError(f"{where}={printable(value)} must be {spell(hint)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={printable(value)} must be a finite number")
    return value


def _numbers(value: Any) -> Iterable[float]:
    """The floats in plain data of any depth."""
    if isinstance(value, Mapping):
        yield from _numbers(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, float):
        yield value


def _checked_annotated(value: Any, hint: Any, where: str) -> Any:
    inner, allowed = hint.__origin__, hint.__metadata__[0]
    if not isinstance(allowed, (Range, Length, Text)):  # the function that reads the value
        return value if dataclasses.is_dataclass(value) else allowed(value, where)
    try:
        checked = checked_value(value, inner, where)
    except ValueError:
        if isinstance(allowed, Length) and not isinstance(value, (str, int, float)):  # it names the element
            raise
        checked = None
    if checked is None or not allowed.holds(checked):
        raise ValueError(f"{where}={printable(value)} must be {spell(hint)}")
    return checked


def _checked_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for arg in (a for a in args if a is not type(None)):
        try:
            return checked_value(value, arg, where)
        except ValueError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ValueError(f"{where}={printable(value)} must be {' or '.join(spell(a) for a in args)}")


def spell(hint: Any, many: bool = False) -> str:
    """A type, with its constraint, as a person would say it; `many` of it is the plural."""
    origin, args = get_origin(hint), get_args(hint)
    one = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    several = {int: "integers", float: "numbers", str: "names"}
    if origin is Annotated:
        constraint = hint.__metadata__[0]
        if not isinstance(constraint, (Range, Length, Text)):
            return "values" if many else getattr(constraint, "said", "a name or a mapping")
        return f"{spell(hint.__origin__, many)} {constraint}"
    if many:
        return several.get(hint, "values")
    if hint in one:
        return one[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(map(spell, args))
    if origin is Literal:
        return " or ".join("true" if arg is True else str(arg) for arg in args)
    if origin is tuple and args[-1] is not Ellipsis:
        alike = len(set(args)) == 1 and get_origin(args[0]) is Annotated
        return f"a list of {len(args)} {spell(args[0], True) if alike else 'values'}"
    if origin in (tuple, list, Sequence):
        return f"a list of {spell(args[0], True)}"
    return "a mapping" if origin in (dict, Mapping) else getattr(hint, "__name__", str(hint))
