"""All that is wrong with a data set, in one line, before anything trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST = 5  # of one kind that the line names


class FaultsError(ValueError):
    """What is wrong, in one line; `details` has a line for every fault, also for those that are left out there."""

    def __init__(self, message: str, details: Sequence[str] = (), *, cut: bool = False):
        """`cut`: the message leaves some of the `details` out."""
        super().__init__(message + (f"; all {len(details)} are in error.txt of the run folder" if cut else ""))
        self.details = "\n".join(details)


class Faults:
    """What is wrong with one source, such as a file of annotations, kind by kind.

    Some faults end the run. Others cost an image or an annotation: with `skip` those are `dropped`, as (kind, name,
    why).
    """

    def __init__(self, source: object, skip: bool):
        self.source, self.skip = source, skip
        self.kinds: dict[str, list[str]] = {}
        self.dropped: list[tuple[str, str, str]] = []
        self.repairable = False

    def fatal(self, kind: str, what: str = "") -> None:
        """A fault that nothing can be done about; `what` is one of several of the kind."""
        self.kinds.setdefault(kind, []).extend([what] if what else [])

    def drop(self, kind: str, name: str, why: str = "") -> None:
        """The image or annotation called `name` cannot serve."""
        if self.skip:
            self.dropped.append((kind, name, why))
        else:
            self.repairable = True
            self.fatal(kind, f"{name} ({why})" if why else name)

    @property
    def cut(self) -> bool:
        """Whether the text leaves faults out."""
        return any(len(found) > MOST for found in self.kinds.values())

    def lines(self) -> list[str]:
        """Every fault in a line of its own."""
        return [
            f"{self.source}: {kind}: {what}" if what else f"{self.source}: {kind}"
            for kind, found in self.kinds.items()
            for what in found or [""]
        ]

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {_some(found)}" if found else kind for kind, found in self.kinds.items())


def raise_all(sources: Iterable[Faults]) -> None:
    """Raises one FaultsError that tells the faults of all sources, if there are any."""
    bad = [faults for faults in sources if faults.kinds]
    if bad:
        hint = "; repair or remove them, or set data.on_error=skip" if any(f.repairable for f in bad) else ""
        message = "data: " + "; ".join(f"{faults.source}: {faults}" for faults in bad) + hint
        details = [line for faults in bad for line in faults.lines()]
        raise FaultsError(message, details, cut=any(faults.cut for faults in bad))


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")
