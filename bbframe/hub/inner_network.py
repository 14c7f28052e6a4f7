"""Where a checkpoint's names hold a network: as they are, or after a prefix that a training tool put before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from bbframe.hub.pickled_weights import AVERAGES
from bbframe.keymap import KeyMap

# Parts of a prefix before the copy that others evaluate: an average of the weights, or the encoder that MoCo keeps.
_PREFERRED = frozenset({*AVERAGES, "encoder_q", "base_encoder"})


class InnerNetwork(NamedTuple):
    """The table that knows most of the names after `prefix`, empty where none is needed.

    `others` are prefixes of further copies that were passed over. `equals` are the prefixes, this one among them,
    between which nothing decides, where there are any.
    """

    keys: KeyMap
    prefix: str = ""
    others: Sequence[str] = ()
    equals: Sequence[str] = ()


def inner_network(own: Sequence[str], tables: Sequence[KeyMap], names: Sequence[str]) -> InnerNetwork:
    """Find a module with these `own` names among the `names` of a checkpoint.

    The first of the `tables` counts, and those of the others that cover all of `own`. A prefix fits when most of what
    the module needs follows it. Of several, the one with the most counts, then an average of weights, then the
    shortest.
    """
    tables = [tables[0], *(keys for keys in tables[1:] if keys.covers(own))]
    prefixes: Counter[str] = Counter()
    for name in names:
        parts = name.split(".", 4)[:-1]
        prefixes.update(".".join(parts[: i + 1]) + "." for i in range(min(len(parts), 3)))
    candidates = ["", *sorted((name for name, _ in prefixes.most_common(32)), key=len)]
    parts_of = [{part for name in own for part in keys.theirs(name)} for keys in tables]
    needed = [{n for n in parts if not keys.may_lack(n)} for keys, parts in zip(tables, parts_of, strict=True)]

    def known(table: int, prefix: str) -> int:
        inside = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return len(needed[table] & set(map(tables[table].bare, inside)))

    plain = max(range(len(tables)), key=lambda table: known(table, ""))
    if 2 * known(plain, "") > len(needed[plain]):
        return InnerNetwork(tables[plain])
    counts = {(t, p): known(t, p) for t, p in product(range(len(tables)), candidates)}
    fitting = {pair: count for pair, count in counts.items() if 2 * count > len(needed[pair[0]])}
    if not fitting:  # of another network: the error will say so by its names
        table, _ = max(counts, key=lambda pair: counts[pair])
        return InnerNetwork(tables[table])
    best = max(fitting, key=lambda pair: (fitting[pair], _preferred(pair[1]), -len(pair[1])))
    others: list[str] = []
    for prefix in (prefix for table, prefix in fitting if table == best[0]):
        if not any(prefix.startswith(one) or one.startswith(prefix) for one in [best[1], *others]):
            others.append(prefix)
    as_good = [p for p in others if fitting[best[0], p] == fitting[best] and _preferred(p) == _preferred(best[1])]
    return InnerNetwork(tables[best[0]], best[1], others, [best[1], *as_good] if as_good else [])


def _preferred(prefix: str) -> bool:
    """Whether a part of a prefix names the copy that others evaluate."""
    return not _PREFERRED.isdisjoint(prefix.split("."))
