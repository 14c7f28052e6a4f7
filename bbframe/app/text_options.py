"""The options that take text: what Hydra's grammar reads as a number stays text for them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

from bbframe.auto import backbone_class
from bbframe.data.options_by_name import OPTIONS as DATA
from bbframe.factory import Source
from bbframe.run.configuration import RunOptions
from bbframe.schema import type_hints


def text_options(config: Any) -> set[str]:
    """The dotted keys of a configuration whose values are text and never numbers."""
    groups: dict[str, list[Any]] = {"": [RunOptions], "backbone.": [Source]}
    chosen = {group: node for group, node in config.items() if hasattr(node, "keys")}
    model_type = chosen.get("backbone", {}).get("model_type")
    with suppress(ValueError):  # the check says what is wrong with it
        groups["backbone."].append(backbone_class(str(model_type)).config_class)
    if (data := DATA.get(str(chosen.get("data", {}).get("name")))) is not None:
        groups["data."] = [data]
    return {
        prefix + name
        for prefix, classes in groups.items()
        for cls in classes
        for name, hint in type_hints(cls).items()
        if hint is str or (str in get_args(hint) and not {int, float, bool} & set(get_args(hint)))
    }
