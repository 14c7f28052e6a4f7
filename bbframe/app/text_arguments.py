"""A command line of key=value as plain data."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any


def typed_arguments(
    arguments: Sequence[str], command: str, paths: Collection[str] = (), texts: Collection[str] = ()
) -> dict[str, Any]:
    """The values by their keys: true, false, null, a number or a text; those of `paths` and `texts` are texts.

    `~` is the home folder in a path. `images` are paths in any number: words after them are more images, because a
    shell expands a pattern to several words. `--plugin MODULE` loads a module of the user's own parts. Raises
    ValueError for anything else.
    """
    given: dict[str, Any] = {}
    modules: list[str] = []
    words, last = list(arguments), ""
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if last == "images" and more_images(word):
            given["images"].append(os.path.expanduser(word))
            continue
        if key == "--plugin":
            modules.append(value if equals else words.pop(0) if words else "")
            continue
        if not equals or word.startswith("-"):
            raise ValueError(f"{word!r} is no option; write key=value; bbframe {command} --help shows what there is")
        if key == "images":
            given.setdefault("images", []).extend(read_paths(value))
        else:
            given[key] = os.path.expanduser(value) if key in paths else value if key in texts else _typed(value)
        last = key
    if modules:
        from bbframe.app.execution import load_plugins

        load_plugins(modules)
    return given


def more_images(word: str) -> bool:
    """Whether a word behind `images=...` is one more of them."""
    return os.path.exists(os.path.expanduser(word)) or ("=" not in word and not word.startswith("-"))


def read_paths(text: str) -> list[str]:
    """One path, or several written as a,b or [a,b]."""
    if os.path.exists(path := os.path.expanduser(text)):
        return [path]
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") and not glob.glob(text) else text
    return [os.path.expanduser(part.strip()) for part in inner.split(",") if part.strip()]


def _typed(text: str) -> Any:
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
