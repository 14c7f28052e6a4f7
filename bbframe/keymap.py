"""A reversible table of weight names: theirs on the Hub's disks <-> ours in the modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_FUSED = re.compile(r"\(([\w|]+)\)")
_INTEGER = re.compile(r"\{(\+\d+)?\}")


class KeyMap:
    """Two columns of names. `{}` stands for an integer, `{+1}` for one more than the other side's; leaves such as
    `weight` ride along.

    A row whose left side holds `(query|key|value)` fuses those tensors, in that order and along the first dimension,
    into the one on its right. `prefixes` are what checkpoints may put before the names, such as a classifier's;
    `saved_prefix` is what the Hub's backbone checkpoints put there. `ignored` are shell patterns of names on disk that
    no backbone needs, such as a head's; `fresh`, of those that a checkpoint may lack: they keep their initial values.

    Raises ValueError when a name matches more than one row.
    """

    def __init__(
        self,
        table: str,
        *,
        prefixes: Iterable[str] = (),
        saved_prefix: str = "",
        ignored: Iterable[str] = (),
        fresh: Iterable[str] = (),
    ):
        self.prefixes, self.saved_prefix = (*prefixes, saved_prefix), saved_prefix
        self._ignored, self._fresh = tuple(ignored), (*fresh, "*.num_batches_tracked")
        self._ours: list[tuple[_Name, list[_Name]]] = []  # ours and the parts that it is made of
        for left, right in (line.split() for line in table.strip().splitlines()):
            fused = _FUSED.search(left)
            parts = fused.group(1).split("|") if fused else [""]
            self._ours.append((_Name(right), [_Name(_FUSED.sub(part, left)) for part in parts]))

    def theirs(self, ours: str) -> list[str]:
        """The names on disk, without prefix, of one of our tensors: several when it is fused from them."""
        found = [
            [left.fill(match) for left in lefts]
            for right, lefts in self._ours
            if (match := right.match(ours)) is not None
        ]
        if len(found) != 1:
            raise ValueError(f"{ours!r} matches {len(found)} rows of the key table; exactly one must")
        return found[0]

    def ours(self, theirs: str) -> str | None:
        """The name of the tensor that one on disk becomes, or becomes a part of; None when no row knows it."""
        found = {
            right.fill(match)
            for right, lefts in self._ours
            for left in lefts
            if (match := left.match(theirs)) is not None
        }
        if len(found) > 1:
            raise ValueError(f"{theirs!r} matches several rows of the key table: {sorted(found)}")
        return found.pop() if found else None

    def ignores(self, theirs: str) -> bool:
        """Whether a name on disk, without prefix, is known to be no part of a backbone."""
        return any(fnmatchcase(theirs, pattern) for pattern in self._ignored)

    def may_lack(self, theirs: str) -> bool:
        """Whether a checkpoint need not hold a name."""
        return any(fnmatchcase(theirs, pattern) for pattern in self._fresh)

    def strip(self, names: Iterable[str]) -> dict[str, str]:
        """The names on disk without the checkpoint's prefix, each with the full name it came from."""
        names = list(names)
        prefix = next((p for p in self.prefixes if p and any(name.startswith(p) for name in names)), "")
        return {name.removeprefix(prefix): name for name in names}


class _Name:
    """A name with holes for integers, each with what is added to it, and an optional leaf behind."""

    def __init__(self, text: str):
        pieces = _INTEGER.split(text)  # text, step, text, step, ..., text
        self.texts, self.steps = pieces[::2], [int(step or 0) for step in pieces[1::2]]
        body = r"(\d+)".join(map(re.escape, self.texts))
        self.pattern = re.compile(body + r"((?:\.[A-Za-z_]\w*)?)")

    def match(self, name: str) -> tuple[list[int], str] | None:
        """The integers of a name, without what is added to them, and its leaf, dot included."""
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
