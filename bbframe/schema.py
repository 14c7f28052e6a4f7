"""Plain data into typed options: every unknown key, wrong type and bad choice is named before anything is built."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the closest known name, or, when none is close, the menu (12 names at most)."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"; choose from: {', '.join(names[:12])}{more}" if names else "; it takes none"


def demand(ok: bool, option: str, value: object, rule: str) -> None:
    """Raise the ValueError that names an option, such as "optim: lr", its value and the rule that it breaks."""
    if not ok:
        raise ValueError(f"{option}={value!r} {rule}")


def parse(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build the options dataclass `cls` from plain data.

    `where` names the data in errors, such as "optim". Raises ValueError for an unknown key, a wrong type, a value
    outside a Literal, and whatever the class itself refuses.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={data!r} must be a mapping")
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
    hints = type_hints(cls)
    return cls(**{key: checked_value(value, hints[key], f"{where}: {key}") for key, value in data.items()})


def type_hints(cls: type) -> dict[str, Any]:
    """The resolved annotations of a dataclass, class variables left out."""
    return {
        name: hint
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if get_origin(hint) is not ClassVar
    }


def checked_value(value: Any, hint: Any, where: str) -> Any:
    """Check `value` against a type hint; lists become tuples where the hint says so, integers become floats.

    `Annotated[T, read]` leaves the value to `read(value, where)`. Raises ValueError that starts with `where`, and says
    what was expected and what was given.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:  # the annotation is the function that reads the value
        return hint.__metadata__[0](value, where)
    if origin in (Union, types.UnionType):
        return _checked_union(value, args, where)
    if origin is Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise ValueError(f"{where}={value!r}{nearest(value, map(str, args))}")
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and args[-1] is not Ellipsis
        if isinstance(value, str) or not isinstance(value, Sequence) or (fixed and len(value) != len(args)):
            raise ValueError(f"{where}={value!r} must be {_spell(hint)}")
        items = [checked_value(v, args[i if fixed else 0], f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}={value!r} must be {_spell(hint)}")
        return {str(k): checked_value(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else parse(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        raise ValueError(f"{where}={value!r} must be {_spell(hint)}")
    return value


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
    raise ValueError(f"{where}={value!r} must be {' or '.join(_spell(a) for a in args)}")


def _spell(hint: Any) -> str:
    """A type as a person would say it."""
    origin, args = get_origin(hint), get_args(hint)
    plain = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if hint in plain:
        return plain[hint]
    if origin is tuple and args[-1] is not Ellipsis:
        return f"a list of {len(args)} values"
    if origin in (tuple, list, Sequence):
        many = {int: "integers", float: "numbers", str: "names"}
        return f"a list of {many.get(args[0], 'values')}"
    return "a mapping" if origin in (dict, Mapping) else getattr(hint, "__name__", str(hint))
