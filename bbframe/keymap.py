"""A reversible table of weight names: theirs in the Hub's files <-> ours in the modules."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

_FUSED = re.compile(r"\(([\w|]+)\)")
_EITHER = re.compile(r"<([^<>]+)>")
_INTEGER = re.compile(r"\{(\+\d+)?\}")


class KeyMap:
    """Two columns of names. `{}` stands for an integer, `{+1}` for one more than the other side's; leaves such as
    `weight` ride along.

    Alternatives `<a|b>` on the left go with those on the right, in order: such a row stands for several.
    A row whose left side holds `(query|key|value)` fuses those tensors, in that order and along the first dimension,
    into the one on its right. `prefixes` may stand before the names in a checkpoint, such as a classifier's;
    `saved_prefix` stands there in the Hub's backbone checkpoints, except before names that match `unprefixed`.

    The rest are shell patterns. `ignored` names on disk are needed by no backbone, such as a head's. `spare` names are
    in the table, and are ignored when a configuration does not use them. `fresh` names may be missing in a
    checkpoint; their tensors keep their initial values.
    Raises ValueError when a name matches more than one row.
    """

    def __init__(
        self,
        table: str,
        *,
        prefixes: Iterable[str] = (),
        saved_prefix: str = "",
        unprefixed: Iterable[str] = (),
        ignored: Iterable[str] = (),
        spare: Iterable[str] = (),
        fresh: Iterable[str] = (),
    ):
        self.prefixes = tuple(prefix for prefix in (*prefixes, saved_prefix) if prefix)
        self._saved_prefix, self._unprefixed = saved_prefix, tuple(unprefixed)
        self._ignored, self._spare = tuple(ignored), tuple(spare)
        self._fresh = (*fresh, "*.num_batches_tracked")
        self._ours: list[tuple[_Name, list[_Name]]] = []  # ours and the parts that it is made of
        for left, right in (row for line in table.strip().splitlines() for row in _rows(*line.split())):
            fused = _FUSED.search(left)
            parts = fused.group(1).split("|") if fused else [""]
            self._ours.append((_Name(right), [_Name(_FUSED.sub(part, left)) for part in parts]))

    def theirs(self, ours: str) -> list[str]:
        """The names on disk, without prefix, of one of our tensors: several when it is fused from them."""
        found = [[left.fill(match) for left in lefts] for right, lefts in self._ours if (match := right.match(ours))]
        if len(found) != 1:
            raise ValueError(f"{ours!r} matches {len(found)} rows of the key table; exactly one must")
        return found[0]

    def covers(self, ours: Iterable[str]) -> bool:
        """Whether each of our tensors has a name on disk; other libraries do not have every configuration."""
        return all(any(right.match(name) for right, _ in self._ours) for name in ours)

    def ours(self, theirs: str) -> str | None:
        """The name of the tensor that one on disk becomes, or becomes a part of; None when no row knows it."""
        found = {right.fill(match) for right, lefts in self._ours for left in lefts if (match := left.match(theirs))}
        if len(found) > 1:
            raise ValueError(f"{theirs!r} matches several rows of the key table: {sorted(found)}")
        return found.pop() if found else None

    def inside(self, *prefixes: str, ignored: Iterable[str]) -> KeyMap:
        """The same table inside a bigger model: its names follow `prefixes`, and the model's own are `ignored`."""
        deeper = copy.copy(self)
        deeper.prefixes, deeper._ignored = (*self.prefixes, *prefixes), (*self._ignored, *ignored)
        return deeper

    def ignores(self, theirs: str) -> bool:
        """Whether a name on disk, without prefix, is known to be no part of a backbone."""
        return _matches(theirs, self._ignored)

    def spares(self, theirs: str) -> bool:
        """Whether a name on disk, without prefix, is ignored when the module has no such tensor."""
        return _matches(theirs, self._spare)

    def may_lack(self, theirs: str) -> bool:
        """Whether a checkpoint need not hold a name."""
        return _matches(theirs, self._fresh)

    def saved(self, theirs: str) -> str:
        """A name on disk with its prefix in the Hub's backbone checkpoints."""
        return theirs if _matches(theirs, self._unprefixed) else self._saved_prefix + theirs

    def bare(self, name: str) -> str:
        """A name on disk without its prefixes."""
        while prefix := next((p for p in self.prefixes if name.startswith(p)), ""):
            name = name.removeprefix(prefix)
        return name

    def strip(self, names: Iterable[str]) -> dict[str, str]:
        """The names on disk without their prefixes, each with its full name; ValueError when two become the same."""
        stripped: dict[str, str] = {}
        for full in names:
            name = self.bare(full)
            if name in stripped:
                raise ValueError(f"{stripped[name]!r} and {full!r} stand for the same tensor")
            stripped[name] = full
        return stripped


class OwnNames(KeyMap):
    """The names of the module itself, which checkpoints of a run, and timm's networks saved by us, hold."""

    def __init__(self) -> None:
        super().__init__("", ignored=["*.num_batches_tracked"])

    def theirs(self, ours: str) -> list[str]:
        return [ours]

    def covers(self, ours: Iterable[str]) -> bool:
        return True

    def ours(self, theirs: str) -> str | None:
        return theirs


class Host(NamedTuple):
    """A bigger model whose checkpoints hold a backbone; the backbone's class declares it.

    `keys` is the table of the backbone's names in such a checkpoint. `config` turns the data of the model's
    `config.json` into the fields that its weights fix, defaults included; all other fields are free. It returns None
    when the model holds another backbone.
    """

    keys: KeyMap
    config: Callable[[Mapping[str, Any]], dict[str, Any] | None]


def _rows(left: str, right: str) -> list[tuple[str, str]]:
    """The rows without alternatives that a row stands for."""
    ours, theirs = _EITHER.search(right), _EITHER.search(left)
    if ours is None or theirs is None:
        return [(left, right)]
    both = zip(theirs[1].split("|"), ours[1].split("|"), strict=True)
    return [row for a, b in both for row in _rows(left.replace(theirs[0], a, 1), right.replace(ours[0], b, 1))]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class _Name:
    """A name with holes for integers, each with a constant that is added to it, and an optional leaf at the end."""

    def __init__(self, text: str):
        pieces = _INTEGER.split(text)  # text, step, text, step, ..., text
        self.texts, self.steps = pieces[::2], [int(step or 0) for step in pieces[1::2]]
        body = r"(\d+)".join(map(re.escape, self.texts))
        self.pattern = re.compile(body + r"((?:\.[A-Za-z_]\w*)?)")

    def match(self, name: str) -> tuple[list[int], str] | None:
        """The integers of a name, without their constants, and its leaf, dot included."""
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        *numbers, leaf = found.groups()
        integers = [int(number) - step for number, step in zip(numbers, self.steps, strict=True)]
        return (integers, leaf) if min(integers, default=0) >= 0 else None

    def fill(self, match: tuple[list[int], str]) -> str:
        """The name with these integers and this leaf."""
        integers, leaf = match
        holes = [str(integer + step) for integer, step in zip(integers, self.steps, strict=True)]
        return "".join(text + hole for text, hole in zip(self.texts, [*holes, ""], strict=True)) + leaf
