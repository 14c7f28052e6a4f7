"""All that is wrong with a data set, in one line, before anything trains."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from bbframe.files import visible

MOST = 5  # of one kind that the line names

log = logging.getLogger("bbframe")


class FaultsError(ValueError):
    """What is wrong, in one line; `details` has a line for every fault, also for those that are left out there.

    `brief` is the line where there is no run folder, which keeps the details.
    """

    def __init__(self, message: str, details: Sequence[str] = (), *, cut: bool = False):
        """`cut`: the message leaves some of the `details` out."""
        super().__init__(message + (f"; all {len(details)} are in error.txt of the run folder" if cut else ""))
        self.details, self.brief = "\n".join(details), message


class Skipped:
    """The unreadable images met so far, {name: reason}, of which `most` are put up with; `what` calls them.

    `assumed` holds what was assumed about the others, {what: names}. Each is logged once, when it is met.
    """

    def __init__(self, most: int, what: str = "unreadable images"):
        self.most, self.what = most, what
        self.images: dict[str, str] = {}
        self.assumed: dict[str, dict[str, None]] = {}
        self._told: set[tuple[str, str]] = set()  # what other processes know

    def fresh(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The errors and assumptions met since the last call, for the other processes of a run."""
        pairs = [(what, name) for what, names in self.assumed.items() for name in names]
        errors = [error for error in self.images.items() if error not in self._told]
        assumed = [pair for pair in pairs if pair not in self._told]
        self._told.update(errors, assumed)
        return errors, assumed

    def take(self, errors: list[tuple[str, str]], assumed: list[tuple[str, str]]) -> None:
        """Take what another process has met, which may have been met here too. Raises FaultsError as `note`."""
        self._told.update(errors, assumed)
        self.assume(assumed)
        if any(name not in self.images for name, _ in errors):
            self.note(errors)

    def assume(self, found: Iterable[tuple[str, str]]) -> None:
        """Take what was assumed, as (what, name)."""
        new: dict[str, list[str]] = {}
        for what, name in found:
            if name not in self.assumed.setdefault(what, {}):
                self.assumed[what][name] = None
                new.setdefault(what, []).append(name)
        for what, names in new.items():
            log.warning("data: %d %s: %s", len(names), what, first_few(names))

    def note(self, errors: list[tuple[str, str]]) -> None:
        """Raises FaultsError when there are more than allowed."""
        new = dict(error for error in errors if error[0] not in self.images)
        self.images.update(new)
        if len(self.images) <= self.most:
            if new:
                told = ", ".join(f"{visible(name)} ({why})" for name, why in new.items())
                limit = f"of at most data.max_errors={self.most}"
                log.warning("data: skipped %d %s, %s: %s", len(new), self.what, limit, told)
            return
        name, why = visible(errors[0][0]), errors[0][1]
        if self.most == 0:
            message = f"data: cannot read {name}: {why}; repair or remove it, or set data.on_error=skip"
        else:
            count = f"{len(self.images)} {self.what}, of which data.max_errors={self.most} may be skipped"
            message = f"data: {count}; the last is {name}: {why}"
        details = [f"{visible(name)}: {why}" for name, why in self.images.items()]
        raise FaultsError(message, details, cut=len(details) > 1)


class Faults:
    """What is wrong with one source, such as a file of annotations: {kind: what is so}.

    Some faults end the run. Others cost an image or an annotation: with `skip` those are `dropped`, as (kind, name,
    why). What is no fault but must be said is `assumed`, as (what, name).
    """

    def __init__(self, source: object, skip: bool):
        self.source, self.skip = source, skip
        self.kinds: dict[str, list[str]] = {}
        self.dropped: list[tuple[str, str, str]] = []
        self.assumed: list[tuple[str, str]] = []
        self.repairable = False

    def fatal(self, kind: str, name: str = "", why: str = "") -> None:
        """A fault that ends the run; `name` is one of several of the kind."""
        self.kinds.setdefault(kind, []).extend([visible(f"{name} ({why})" if why else name)] if name else [])

    def assume(self, what: str, name: str) -> None:
        """The image or annotation called `name` is read all the same, in the way that `what` says."""
        self.assumed.append((what, name))

    def drop(self, kind: str, name: str, why: str = "") -> None:
        """The image or annotation called `name` cannot serve."""
        if self.skip:
            self.dropped.append((kind, name, why))
        else:
            self.repairable = True
            self.fatal(kind, name, why)


def first_few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(map(visible, names[:MOST])) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def raise_all(sources: Iterable[Faults]) -> None:
    """Raises one FaultsError that tells the faults of all sources, if there are any."""
    told, details, cut, hint = [], [], False, ""
    for faults in sources:
        kinds = []
        for kind, found in faults.kinds.items():
            kinds.append(f"{kind}: {first_few(found)}" if found else kind)
            details += [f"{faults.source}: {kind}: {what}" for what in found] or [f"{faults.source}: {kind}"]
            cut = cut or len(found) > MOST
        if kinds:
            told.append(f"{faults.source}: {'; '.join(kinds)}")
        if faults.repairable:
            hint = "; repair or remove them, or set data.on_error=skip"
    if told:
        raise FaultsError(f"data: {'; '.join(told)}{hint}", details, cut=cut)
