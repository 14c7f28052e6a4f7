"""The options that take text: what Hydra's grammar reads as a number stays text for them."""

from __future__ import annotations

import re
from typing import Any, get_args

from omegaconf import DictConfig

from bbframe.app.command_line import key_of, parsed_value, quoted
from bbframe.app.option_help import option_classes
from bbframe.schema import type_hints


def as_text(config: DictConfig, overrides: list[str]) -> list[str]:
    """Overrides of a configuration, those of text quoted where they look like numbers: backbone.revision=1234567."""
    keys = text_options(config)
    return [_literal(override) if key_of(override) in keys else override for override in overrides]


def text_options(config: DictConfig) -> set[str]:
    """The dotted keys of a configuration whose values are text and never numbers."""
    classes: dict[str, list[Any]] = option_classes(config)
    return {
        prefix + name
        for prefix, group in classes.items()
        for cls in group
        for name, hint in type_hints(cls, constraints=False).items()
        if hint is str or (str in get_args(hint) and not {int, float, bool} & set(get_args(hint)))
    }


def _literal(override: str) -> str:
    key, equals, value = override.partition("=")
    if found := re.fullmatch(r"\[([^\[\]{}()\"'\\]+)\]", value.strip()):
        pieces = [_literal(f"{key}={piece.strip()}").partition("=")[2] for piece in found[1].split(",")]
        return f"{key}=[{','.join(pieces)}]"
    parsed = parsed_value(override) if equals else None
    if parsed is None:
        return override
    pieces = value.split(",") if parsed.is_sweep_override() else [value]
    values = [parsed_value(f"{key}={piece}") for piece in pieces]
    if not all(values) or not any(isinstance(one.value(), (bool, int, float)) for one in values):
        return override
    return f"{key}=" + ",".join(quoted(piece.strip()) for piece in pieces)
