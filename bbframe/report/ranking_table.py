"""The table of a ranking as text, for the terminal and in Markdown, from the data of rank.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbframe.files import visible
from bbframe.report.ranking_words import backbone_label, is_measured, ranking_head, score_name, with_interval
from bbframe.report.tables import aligned, markdown, markdown_text
from bbframe.report.text_drawing import shortened

LONGEST = 30  # letters of a backbone's name in the terminal


def ranking_text(ranking: Mapping[str, Any]) -> str:
    """The head, the table, what failed and the notes, for a terminal; 120 columns wide in the usual case."""
    lines = list(ranking_head(ranking)) if ranking["backbones"] else ["no backbone could be ranked"]
    if ranking["backbones"]:
        lines += ["", *aligned(ranking_rows(ranking, LONGEST), left=2), *_legend(ranking)]
    return "\n".join([*lines, *_after(ranking)])


def ranking_markdown(ranking: Mapping[str, Any]) -> str:
    """The same for rank.md, with names in full and the recommended command."""
    if not ranking["backbones"]:
        lines = ["no backbone could be ranked", ""]
    else:
        lines = [f"{markdown_text(line)}  " for line in ranking_head(ranking)]
        lines += ["", *markdown(ranking_rows(ranking, 0), left=2), ""]
        lines += [f"{markdown_text(line)}  " for line in _legend(ranking)]
    lines += [f"\n{markdown_text(line)}" for line in _after(ranking) if line]
    if command := visible(str(ranking.get("command") or "")):
        lines += ["", "The command that trains the winner in full:", "", f"    {command}"]
    return "\n".join([*lines, ""])


def ranking_rows(ranking: Mapping[str, Any], longest: int) -> list[list[str]]:
    """The header and a row for each backbone; names are cut to `longest` letters, unless that is 0.

    Columns without any value, such as those of a race that was not run, are left out.
    """
    header = ["", "backbone", score_name(ranking["score"]), "P(best)", "verdict", "stages"]
    header += ["accuracy", "prior", "M params"]
    table = [[*header, "ms", "race val", "test"]]
    for place, one in enumerate(ranking["backbones"], start=1):
        race = one.get("race") or {}
        indices = (one.get("chosen") or {}).get("indices") or ()
        table.append(
            [
                str(place),
                _cut_label(one, longest),
                with_interval(one.get("score"), one.get("low"), one.get("high")),
                _form(one.get("probability_best"), ".2f"),
                str(one.get("verdict") or "-"),
                ",".join(map(str, indices)) or "-",
                _form(one.get("accuracy"), ".3f"),
                _form((one.get("prior") or {}).get("top1"), ".1f"),
                _form(one.get("params"), ".1f", 1e-6),
                _form(one.get("latency_seconds"), ".3g", 1e3),
                _form(race.get("val"), ".3f"),
                _form(race.get("test"), ".3f"),
            ]
        )
    kept = [i for i, column in enumerate(zip(*table, strict=True)) if i < 6 or set(column[1:]) != {"-"}]
    return [[row[i] for i in kept] for row in table]


def _cut_label(one: Mapping[str, Any], longest: int) -> str:
    """A name that is cut says that its weights are untrained all the same."""
    label = backbone_label(one)
    if not longest or len(label) <= longest:
        return label
    end = " (untrained)" if one.get("untrained") else ""
    return shortened(label.removesuffix(end), longest - len(end)) + end


def _form(value: Any, form: str, factor: float = 1) -> str:
    return format(value * factor, form) if is_measured(value) else "-"


def _legend(ranking: Mapping[str, Any]) -> list[str]:
    """What the columns say that do not speak for themselves."""
    use = "for backbone.out_indices"
    if ranking["task"] == "detection":
        use = "those whose boxes tell their class best, while a detector takes its maps by stride"
    parts = [f"stages: {use}; ms: forward time of one image"]
    if any(is_measured(one.get("accuracy")) for one in ranking["backbones"]):
        parts.append("accuracy: leave-one-out, of a linear classifier of these stages")
    if any(one.get("prior") for one in ranking["backbones"]):
        parts.append("prior: published ImageNet top-1, beside the score and no part of it")
    return parts


def _after(ranking: Mapping[str, Any]) -> list[str]:
    """The winner of the race, what failed and why, and the notes."""
    lines = []
    race = ranking.get("race") or {}
    if race.get("winner"):
        lines.append(f"winner of the race: {visible(str(race['winner']))}")
    for one in ranking.get("failed") or ():
        reason = " ".join(visible(str(one.get("reason") or "no reason is known"), keep="\n\t").split())
        lines.append(f"failed: {visible(str(one['name']))}: {reason}")
    notes = [*(race.get("notes") or ()), *(ranking.get("notes") or ())]
    lines += [" ".join(visible(str(note), keep="\n\t").split()) for note in notes]
    return ["", *lines] if lines else []
