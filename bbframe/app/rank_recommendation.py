"""The overrides that train a ranked backbone with its chosen stages, in a race and in full."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bbframe.app.command_line import key_of
from bbframe.app.race import Entrant
from bbframe.rank.race_plan import TRAINING_COST, TRAINING_COST_OF_DETECTION

if TYPE_CHECKING:
    from bbframe.rank.candidates import Candidate
    from bbframe.run.configuration import Configuration


def entrant_overrides(
    row: Mapping[str, Any],
    plan: tuple[Configuration, Candidate],
    base: Sequence[str],
    pretrained: bool,
) -> list[str]:
    """The overrides that choose a backbone, its weights, its stages and, where the user names none, a head for them.

    A classifier gets the chosen stages. A detector takes its maps by their strides, which its head knows; of a plain
    transformer, whose maps all have one stride, it gets the stage that the scores put first.
    """
    configuration, one = plan
    given = {key_of(override) for override in base}
    found = [*one.overrides, *(["backbone.pretrained=true"] if pretrained else [])]
    indices, strides = row["chosen"]["indices"], {stage["stride"] for stage in row["stages"]}
    if configuration.task.name == "detection":
        if len(strides) == 1:
            first = row["chosen"]["steps"][0]["stage"]
            place = row["chosen"]["stages"].index(first)
            found.append(f"backbone.out_indices=[{indices[place]}]")
        return found
    found.append(f"backbone.out_indices=[{','.join(map(str, indices))}]")
    if len(indices) > 1 and "head" not in given:
        found.append("head=multi_level")
    return found


def entrants_of(
    rows: Sequence[Mapping[str, Any]],
    plans: Mapping[str, tuple[Configuration, Candidate]],
    base: Sequence[str],
    pretrained: bool,
    images: int,
) -> list[Entrant]:
    """The finalists among rows of rank.json, those of the probe first, with what an epoch of `images` may take."""
    found = []
    for row in sorted((row for row in rows if row["finalist"]), key=lambda row: row["finalist"] == "prior"):
        plan = plans[row["name"]]
        cost = TRAINING_COST if plan[0].task.name == "classification" else TRAINING_COST_OF_DETECTION
        seconds = row["latency_seconds"] * images * cost
        found.append(Entrant(row["name"], entrant_overrides(row, plan, base, pretrained), seconds))
    return found


def shell_word(override: str) -> str:
    """An override as a shell takes it: inside of double quotes where it has quotes of its own."""
    if "'" in override and not set('"$`\\!') & set(override):
        return f'"{override}"'
    return shlex.quote(override)
