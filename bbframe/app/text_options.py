"""The options that take text: what Hydra's grammar reads as a number stays text for them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

from bbframe import registry
from bbframe.factory import Source
from bbframe.run.configuration import RunOptions
from bbframe.schema import type_hints


def text_options(config: Any) -> set[str]:
    """The dotted keys of a configuration whose values are text and never numbers."""
    groups: dict[str, list[Any]] = {"": [RunOptions], "backbone.": [Source]}
    for group, node in config.items():
        name = node.get("model_type" if group == "backbone" else "name") if hasattr(node, "keys") else None
        if group in registry.KINDS and name is not None:
            with suppress(ValueError):  # the check says what is wrong with it
                groups.setdefault(f"{group}.", []).append(registry.find(str(group), name).options)
    return {
        prefix + name
        for prefix, classes in groups.items()
        for cls in classes
        for name, hint in type_hints(cls).items()
        if hint is str or (str in get_args(hint) and not {int, float, bool} & set(get_args(hint)))
    }
