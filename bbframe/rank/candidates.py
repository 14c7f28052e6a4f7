"""Which backbones are ranked: named ones, patterns, or lists such as `small`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bbframe.schema import nearest

SMALL, STANDARD = 30e6, 100e6  # the most parameters of a small and of a standard backbone
LISTS = {
    "small": "at most 30 M parameters",
    "standard": "30 M to 100 M parameters",
    "all": "every variant",
    "cached": "those whose weights are there without a network",
}
OF_THE_LARGEST = 0.9  # a variant this close to the largest of its kind counts as one of that size


@dataclass(frozen=True)
class Candidate:
    """A backbone to be ranked. `overrides` choose it on the command line; `checkpoint` names its weights, if any."""

    name: str
    overrides: tuple[str, ...]
    architecture: str = ""
    parameters: float | None = None
    checkpoint: str | None = None
    timm_name: str | None = None


def chosen_candidates(
    words: Sequence[str], catalog: Sequence[Candidate], cached: Callable[[Candidate], bool]
) -> tuple[list[Candidate], list[str]]:
    """The candidates that words choose among the catalog, in its order, each once; and the words that chose none.

    A word is a list's name, a pattern with * or ?, or the name of a backbone.
    """
    found: dict[str, Candidate] = {}
    unknown = []
    for word in words:
        if word in LISTS:
            some = [one for one in catalog if _in_list(word, one, cached)]
        else:
            some = [one for one in catalog if fnmatch.fnmatchcase(one.name, word)]
            unknown += [] if some else [word]
        found |= {one.name: one for one in some}
    return list(found.values()), unknown


def _in_list(name: str, one: Candidate, cached: Callable[[Candidate], bool]) -> bool:
    size = one.parameters or 0
    if name == "small":
        return size <= SMALL
    if name == "standard":
        return SMALL < size <= STANDARD
    return name == "all" or cached(one)


def default_candidates(catalog: Sequence[Candidate]) -> list[Candidate]:
    """The largest small and the largest standard variant of each architecture; the small ones come first.

    Of variants of about one size the one with the shortest name is taken, which is the plainest.
    """
    found: list[Candidate] = []
    for low, high in ((0.0, SMALL), (SMALL, STANDARD)):
        for architecture in dict.fromkeys(one.architecture for one in catalog):
            sized = [
                one for one in catalog if one.architecture == architecture and low < (one.parameters or 0) <= high
            ]
            if sized:
                largest = max(one.parameters or 0 for one in sized)
                alike = [one for one in sized if (one.parameters or 0) >= OF_THE_LARGEST * largest]
                found.append(min(alike, key=lambda one: (len(one.name), -(one.parameters or 0))))
    return found


def without_twins(catalog: Iterable[Candidate]) -> list[Candidate]:
    """The catalog without files that repeat a variant under the architecture's own name, as resnet does resnet50."""
    everything = list(catalog)
    kept = []
    for one in everything:
        twins = [o for o in everything if o.architecture == one.architecture and o.checkpoint == one.checkpoint]
        named = [o for o in twins if o.name != one.architecture.replace("-", "_")]
        if one.checkpoint is None or one in named or not named:
            kept.append(one)
    return kept


def unknown_word(word: str, known: Sequence[str]) -> ValueError:
    """The error for a word that chooses no backbone."""
    if any(letter in word for letter in "*?["):
        return ValueError(f"backbones: {word!r} matches no backbone; `bbframe list` shows all of them")
    return ValueError(
        f"backbones: no backbone is called {word!r}{nearest(word, [*known, *LISTS])}; a network of timm is written "
        "timm/<name>, weights of your own are given by their folder"
    )


def from_catalog(lines: Iterable[Mapping[str, Any]]) -> list[Candidate]:
    """The candidates of a catalog's lines (`bbframe list --json`), timm's open choice left out."""
    return [
        Candidate(
            name=line["backbone"],
            overrides=(f"backbone={line['backbone']}",),
            architecture=line["model_type"],
            parameters=line["parameters"],
            checkpoint=line["checkpoint"],
            timm_name=line["timm_name"],
        )
        for line in lines
        if line["parameters"] is not None
    ]
