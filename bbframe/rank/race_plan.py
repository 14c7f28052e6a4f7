"""How finalists are chosen and raced: the best by probe and by prior, then successive halving over epochs.

The hybrid of both orders is safer than either (arXiv:2010.06402); successive halving (Jamieson and
Talwalkar, arXiv:1502.07943) trains each rung anew, because its schedule must end with its epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TRAINING_COST = 3.5  # forward passes that a training step takes, its backward pass and its optimizer included
TRAINING_COST_OF_DETECTION = 2 * TRAINING_COST  # with the head, whose cost is not measured before
JOB_SECONDS = 4.0  # of a run besides its training: the test and the report


def choose_finalists(rows: Sequence[Mapping[str, Any]], count: int) -> dict[str, str]:
    """{name: "probe", "prior" or "both"} of the finalists, from rows of rank.json in their order.

    The best by each order take turns, the probe first. Where no backbone has a prior all come from the probe.
    """
    probe = [row["name"] for row in rows]
    tops = {row["name"]: row["prior"]["top1"] for row in rows if row.get("prior")}
    prior = sorted(tops, key=lambda name: -tops[name])
    found: dict[str, str] = {}
    by_turns = [("probe", probe), ("prior", prior)]
    places = {"probe": 0, "prior": 0}
    while len(found) < min(count, len(probe)):
        for kind, order in by_turns:
            if len(found) >= count:
                break
            while places[kind] < len(order) and order[places[kind]] in found:
                name = order[places[kind]]
                if found[name] != kind and places[kind] < count:
                    found[name] = "both"
                places[kind] += 1
            if places[kind] < len(order):
                found[order[places[kind]]] = kind
                places[kind] += 1
    return found


def rungs_of(entrants: int) -> int:
    """How many rungs leave two entrants for the last: 4 -> 2, 2 -> 1, 1 -> 1."""
    return max(1, math.ceil(math.log2(max(entrants, 1))))


def epochs_of_rung(
    seconds_an_epoch: Sequence[float], left: float, rungs: int, max_epochs: int, seeds: int = 1
) -> int | None:
    """The epochs of a rung, so that it takes its share of the `left` seconds; None when not even one fits.

    `seconds_an_epoch` has an entry an entrant. When everything fits in full, the rung is the last one with
    `max_epochs`.
    """
    fixed = JOB_SECONDS * len(seconds_an_epoch) * seeds
    epoch = sum(seconds_an_epoch) * seeds
    if fixed + epoch * max_epochs <= left:
        return max_epochs
    epochs = int((left / rungs - fixed) / epoch)
    return min(epochs, max_epochs) if epochs >= 1 else None


def entrants_within(
    order: Sequence[str], seconds_an_epoch: Mapping[str, float], left: float, max_epochs: int, seeds: int = 1
) -> tuple[list[str], int | None]:
    """As many of the first entrants as can be trained for an epoch in the first rung, and its epochs.

    None of them when not even the first can; the epochs are then None.
    """
    for count in range(len(order), 0, -1):
        costs = [seconds_an_epoch[name] for name in order[:count]]
        epochs = epochs_of_rung(costs, left, rungs_of(count), max_epochs, seeds)
        if epochs is not None:
            return list(order[:count]), epochs
    return [], None


def kept_of(scores: Mapping[str, float | None], mode: str) -> list[str]:
    """The better half of a rung's entrants, the best first; those without a score are out."""
    sign = 1 if mode == "max" else -1
    found = {name: score for name, score in scores.items() if score is not None}
    order = sorted(found, key=lambda name: -sign * found[name])
    return order[: max(1, math.ceil(len(scores) / 2))]
