"""The options of `bbframe rank`, and how a command line gives them beside the overrides of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import yaml

from bbframe.schema import Length, Name, Options, Range, Seed, Sides, parse

FORBIDDEN = {
    "backbone": "rank compares backbones; name them by backbones=..., such as backbones=resnet50,swin_tiny",
    "rerun": "rank repeats no run; leave rerun= out",
    "ckpt_path": "rank takes weights by backbones=<run folder>",
}


@dataclass(frozen=True, kw_only=True)
class RankOptions(Options):
    """`backbones` are names, patterns, lists (small, standard, all, cached), timm/<name>, folders of weights.

    At most `images` training images are looked at. Within the `budget`, a time such as 15m, `finalists` are trained;
    0 stops after the scores. `seeds` are those of the race. `image_size` overrides every checkpoint's own. With
    `pretrained=false` untrained networks are ranked, and everything says so. `out` is the folder for the results; a
    folder with an earlier ranking goes on.
    """

    prefix: ClassVar[str] = "rank: "

    backbones: Annotated[tuple[Name, ...], Length(0, 10_000)] = ()
    images: Annotated[int, Range(10, 10**7, "images")] = 1000
    budget: Name = "15m"
    finalists: Annotated[int, Range(0, 100, "finalists")] = 4
    seeds: Annotated[tuple[Seed, ...], Length(1, 100)] = (0,)
    image_size: Sides | None = None
    pretrained: bool = True
    out: Name | None = None


KEYS = tuple(RankOptions.__dataclass_fields__)


def read_rank_arguments(arguments: Sequence[str]) -> tuple[RankOptions, list[str]]:
    """The options of rank, and the other arguments, which are those of a run. Raises ValueError in one line."""
    given: dict[str, Any] = {}
    others: list[str] = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals and key in KEYS:
            given[key] = _read_value(key, text)
            continue
        bare = key.lstrip("+~")
        if equals and (bare in FORBIDDEN or bare.startswith("backbone.")):
            raise ValueError(f"{argument}: {FORBIDDEN.get(bare, FORBIDDEN['backbone'])}")
        others.append(argument)
    return parse(RankOptions, given, "rank"), others


def _read_value(key: str, text: str) -> Any:
    """A list of words, a text, or what YAML makes of it."""
    if key == "backbones":
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [os.path.expanduser(word.strip().strip("'\"")) for word in inner.split(",") if word.strip()]
    if key in ("out", "budget"):
        return os.path.expanduser(text)
    if key == "seeds" and not text.startswith("["):
        text = f"[{text}]"
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{key}={text}: cannot be read; bbframe rank --help shows what there is") from error
