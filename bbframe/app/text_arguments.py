"""A command line of key=value as plain data."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any


def typed_arguments(
    arguments: Sequence[str], command: str, paths: Collection[str] = (), texts: Collection[str] = ()
) -> dict[str, Any]:
    """The values by their keys: true, false, null, a number or a text; those of `paths` and `texts` are texts.

    `~` is the home folder in a path. `--plugin MODULE` loads a module of the user's own parts. Raises ValueError for
    anything else.
    """
    given: dict[str, Any] = {}
    modules: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if key == "--plugin":
            modules.append(value if equals else words.pop(0) if words else "")
            continue
        if not equals or word.startswith("-"):
            raise ValueError(f"{word!r} is no option; write key=value; bbframe {command} --help shows what there is")
        given[key] = os.path.expanduser(value) if key in paths else value if key in texts else _typed(value)
    if modules:
        from bbframe.app.execution import load_plugins

        load_plugins(modules)
    return given


def _typed(text: str) -> Any:
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
