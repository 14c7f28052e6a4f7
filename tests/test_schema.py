"""Plain data into typed options, and what each refusal says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from bbframe.schema import checked_value, nearest, parse, type_hints


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    kind: ClassVar[str] = "options"
    count: int
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("a", str, "a"),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ((1, 2), list[int], [1, 2]),
        ((1, 2), Sequence[int], [1, 2]),
        ([[1], [2, 3]], tuple[tuple[int, ...], ...], ((1,), (2, 3))),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({1: "x"}, Mapping[str, str], {"1": "x"}),
        ("slow", Literal["fast", "slow"], "slow"),
        ("auto", int | Literal["auto"], "auto"),
        (2, int | str, 2),
        ({"rate": 1}, Inner, Inner(rate=1.0)),
        (object, Any, object),
    ],
)
def test_good_values_become_what_the_hint_says(value, hint, expected):
    got = checked_value(value, hint, "group: key")
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "text"),
    [
        ("3", int, "key='3' must be an integer"),
        (3.0, int, "key=3.0 must be an integer"),
        (True, int, "key=True must be an integer"),
        (True, float, "key=True must be a number"),
        ("0.1", float, "key='0.1' must be a number"),
        (1, bool, "key=1 must be true or false"),
        (1, str, "key=1 must be text"),
        (None, int, "key=None must be an integer"),
        ("12", tuple[int, ...], "key='12' must be a list of integers"),
        (5, tuple[float, ...], "key=5 must be a list of numbers"),
        (5, list[str], "key=5 must be a list of names"),
        ([1, "a"], tuple[int, ...], "key[1]='a' must be an integer"),
        ([1], tuple[int, int], "key=[1] must be a list of 2 values"),
        ([[1], ["b"]], tuple[tuple[int, ...], ...], "key[1][0]='b' must be an integer"),
        ("a", dict[str, int], "key='a' must be a mapping"),
        ({"a": "b"}, dict[str, int], "key.a='b' must be an integer"),
        ("slwo", Literal["fast", "slow"], "key='slwo'; did you mean 'slow'?"),
        ("x", Literal["fast", "slow"], "key='x'; choose from: fast, slow"),
        (1, Literal[True], "key=1; choose from: True"),
        ("x", int | float, "key='x' must be an integer or a number"),
        ("x", int | None, "key='x' must be an integer"),
        ({"rte": 1}, Inner, "key: unknown option 'rte'; did you mean 'rate'?"),
        (3, Inner, "key=3 must be a mapping"),
    ],
)
def test_bad_values_are_named_with_what_was_expected(value, hint, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        checked_value(value, hint, "key")


def test_parse_fills_defaults_and_goes_deep():
    assert parse(Options, {"count": 1, "sizes": [3], "inner": {"rate": 1}}, "group") == Options(
        count=1, sizes=(3,), inner=Inner(rate=1.0)
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, "group: count must be given"),
        ({"count": 1, "sizez": [1]}, "group: unknown option 'sizez'; did you mean 'sizes'?"),
        ({"count": 1, "zzz": 1}, "group: unknown option 'zzz'; choose from: count, inner, mode, sizes"),
        ({"count": 1, "kind": "x"}, "group: unknown option 'kind'; choose from: count, inner, mode, sizes"),
        ({"count": "x"}, "group: count='x' must be an integer"),
        ({"count": 1, "inner": {"rate": "x"}}, "group: inner: rate='x' must be a number"),
        (None, "group=None must be a mapping"),
        ([1], "group=[1] must be a mapping"),
    ],
)
def test_parse_names_the_group_and_the_key(data, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse(Options, data, "group")


def test_nearest_gives_one_name_or_the_menu():
    assert nearest("resnt", ["dinov2", "resnet"]) == "; did you mean 'resnet'?"
    assert nearest("qqq", ["b", "a"]) == "; choose from: a, b"
    assert nearest("x", []) == "; it takes none"


def test_type_hints_leave_class_variables_out():
    assert set(type_hints(Options)) == {"count", "mode", "sizes", "inner"}
