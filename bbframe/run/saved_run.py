"""What a checkpoint says about its run: everything that it takes to use the network without the run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "bbframe"  # where it lies in a checkpoint


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """The record that every checkpoint carries, as plain data.

    `config` (secrets masked) and `overrides` repeat the run; `plugins` are the user's modules that brought its parts.
    `backbone` is the backbone's config, `preprocessing` its own, and `inputs` how the run prepared its images.
    `category_ids` are what the files of detection call the classes. `parameter_names` lists the trained parameters
    in the optimizer's order.
    """

    config: dict[str, Any]
    overrides: list[str]
    plugins: list[dict[str, Any]]
    class_names: list[str]
    category_ids: list[int] | None
    backbone: dict[str, Any]
    preprocessing: dict[str, Any]
    inputs: dict[str, Any]
    parameter_names: list[str] = dataclasses.field(default_factory=list)

    def put(self, checkpoint: dict[str, Any], parameter_names: list[str]) -> None:
        """Write the record into a checkpoint's content."""
        checkpoint[KEY] = {**vars(self), "parameter_names": parameter_names}

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], path: Path | str) -> SavedRun:
        """The record in a checkpoint's content. Raises ValueError that names the file when there is none."""
        record = checkpoint.get(KEY) if isinstance(checkpoint, Mapping) else None
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(record, Mapping) or not names <= record.keys():
            raise ValueError(
                f"checkpoint {path} does not say how its images were prepared: it is not a checkpoint of bbframe, or "
                "one of an earlier version; train again"
            )
        return cls(**{name: record[name] for name in names})
