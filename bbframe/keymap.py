"""A reversible table of weight names: theirs on the Hub's disks <-> ours in the modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_FUSED = re.compile(r"\(([\w|]+)\)")


class KeyMap:
    """Two columns of names. `{}` stands for an integer; leaves such as `weight` ride along.

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
        self._rows = []
        for left, right in (line.split() for line in table.strip().splitlines()):
            fused = _FUSED.search(left)
            parts = fused.group(1).split("|") if fused else [""]
            self._rows.append(([_FUSED.sub(part, left) for part in parts], right))
        self._ours = [(_pattern(right), lefts) for lefts, right in self._rows]
        self._theirs = [(_pattern(left), right) for lefts, right in self._rows for left in lefts]

    def theirs(self, ours: str) -> list[str]:
        """The names on disk, without prefix, of one of our tensors: several when it is fused from them."""
        found = [
            [_fill(left, match.groups()) for left in lefts]
            for pattern, lefts in self._ours
            if (match := pattern.fullmatch(ours))
        ]
        if len(found) != 1:
            raise ValueError(f"{ours!r} matches {len(found)} rows of the key table; exactly one must")
        return found[0]

    def ours(self, theirs: str) -> str | None:
        """The name of the tensor that one on disk becomes, or becomes a part of; None when no row knows it."""
        found = {_fill(right, m.groups()) for pattern, right in self._theirs if (m := pattern.fullmatch(theirs))}
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


def _pattern(name: str) -> re.Pattern[str]:
    """Match a name, each `{}` an integer, with an optional leaf: the last group, dot included."""
    return re.compile(re.escape(name).replace(r"\{\}", r"(\d+)") + r"((?:\.[A-Za-z_]\w*)?)")


def _fill(name: str, groups: tuple[str, ...]) -> str:
    *integers, leaf = groups
    return name.format(*integers) + leaf
