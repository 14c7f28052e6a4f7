"""The options of our own loggers; light, so that errors come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bbframe.registry import declare
from bbframe.schema import Options, Text

Label = Annotated[str, Text("1 to 100 letters, digits, spaces, or any of . _ -", r"(?![. ])[\w. -]{1,100}(?<![. ])")]


@dataclass(frozen=True, kw_only=True)
class TrackioOptions(Options):
    """`project` (null: bbframe) collects runs, and `run_name` (null: the run's) labels this one."""

    prefix: ClassVar[str] = "logger: "

    name: Literal["trackio"] = "trackio"
    project: Label | None = None
    run_name: Label | None = None


declare("logger", {"trackio": (TrackioOptions, "bbframe.run.trackio_logger:TrackioLogger")})
