"""Whether the processes of a start were all given what makes their training one training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

GROUPS = ("backbone", "task", "head", "data", "optim", "schedule", "trainer", "seed")
OWN = {"data.num_workers", "data.timeout"}  # what a machine may have of its own, beside its paths


def options_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The options of a composed configuration that must be equal in all processes of a run, as text."""
    return dict(_leaves({key: config.get(key) for key in GROUPS}, ""))


def check_same(options: Sequence[Mapping[str, str]]) -> None:
    """Raise ValueError unless the `options` of all processes, by their numbers, are those of the first."""
    for number, theirs in enumerate(options):
        for key in sorted(theirs.keys() | options[0].keys()):
            here, there = options[0].get(key, "absent"), theirs.get(key, "absent")
            if here != there:
                raise ValueError(
                    f"{key}={there} in process {number} and {here} in the first; start all processes with one command"
                )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif key not in OWN and not _path(value, key):
        yield key, str(value)


def _path(value: Any, key: str) -> bool:
    """Whether an option may say where the images are, which each machine may keep elsewhere."""
    return isinstance(value, str) and key.startswith("data.") and key.count(".") == 1 and key != "data.name"
