"""The options of a prediction, and how a command line gives them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from bbframe.schema import Name, Options, Range, Share, parse


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """`run` is whatever `bbframe.load` takes, `images` are files, folders and patterns, `out` takes the results.

    Without `out` the results go to <run folder>/predictions; of a network on the Hub, to
    outputs/<user>--<name>/predictions. Boxes with a score of `threshold` or more are drawn. `overwrite` allows the
    results of an earlier prediction to be replaced. Raises ValueError for an impossible value.
    """

    prefix: ClassVar[str] = "predict: "

    run: Name
    images: tuple[Name, ...]
    out: Name | None = None
    threshold: Share = 0.5
    batch_size: Annotated[int, Range(1, 65_536, "images")] = 8
    device: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise ValueError("predict: images must name files or folders")
        if self.device in ("gpu", "cuda"):
            import torch

            if not torch.cuda.is_available():
                finds = f"torch {torch.__version__} finds none here"
                raise ValueError(f"predict: device={self.device}, but {finds}; use device=auto")


def read_arguments(arguments: Sequence[str]) -> PredictOptions:
    """Read a command line of key=value; `~` is the home folder in every path.

    Words after `images=` are more images, because a shell expands a pattern to several words. Raises ValueError for
    anything else.
    """
    given: dict[str, Any] = {}
    last = ""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if last == "images" and (not equals or os.path.exists(argument)):
            given["images"].append(os.path.expanduser(argument))
            continue
        if not equals or argument.startswith("-"):
            raise ValueError(f"{argument!r} is no option; write key=value; bbframe predict --help shows what there is")
        if key == "images":
            given.setdefault("images", []).extend(read_paths(value))
        else:
            given[key] = _read_value(key, value)
        last = key
    return parse(PredictOptions, given, "predict")


def read_paths(text: str) -> list[str]:
    """One path, or several written as a,b or [a,b]."""
    if os.path.exists(path := os.path.expanduser(text)):
        return [path]
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") and not glob.glob(text) else text
    return [os.path.expanduser(part.strip()) for part in inner.split(",") if part.strip()]


def _read_value(key: str, text: str) -> Any:
    """A path, a word, a truth value or a number, as the option `key` needs it."""
    if key in ("run", "out"):
        return os.path.expanduser(text)
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
