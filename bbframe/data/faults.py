"""All that is wrong with a data set, in one line, before anything trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """The names, or the first few and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


class Faults:
    """What is wrong with one source of annotations, kind by kind.

    Some faults end the run. Others cost an image or an annotation: with `skip` those are `dropped`, as (name, why).
    """

    def __init__(self, source: object, skip: bool):
        self.source, self.skip = source, skip
        self.kinds: dict[str, list[str]] = {}
        self.dropped: list[tuple[str, str]] = []
        self.repairable = False

    def fatal(self, kind: str, what: str = "") -> None:
        """A fault that nothing can be done about; `what` is one of several of the kind."""
        self.kinds.setdefault(kind, []).extend([what] if what else [])

    def drop(self, kind: str, name: str, why: str = "") -> None:
        """The image or annotation called `name` cannot serve."""
        if self.skip:
            self.dropped.append((f"{self.source}: {name}", f"{kind}, {why}" if why else kind))
        else:
            self.repairable = True
            self.fatal(kind, f"{name} ({why})" if why else name)

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {some(found)}" if found else kind for kind, found in self.kinds.items())


def raise_all(sources: Iterable[Faults]) -> None:
    """Raises one ValueError that tells the faults of all sources, if there are any."""
    bad = [faults for faults in sources if faults.kinds]
    if bad:
        hint = "; repair or remove them, or set data.on_error=skip" if any(f.repairable for f in bad) else ""
        raise ValueError("data: " + "; ".join(f"{faults.source}: {faults}" for faults in bad) + hint)
