"""The options that may be `auto`: found before a run trains, and recorded as numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bbframe.data.data_module import DataModule
from bbframe.files import dump_yaml, write_text
from bbframe.run.batch_size_finder import find_batch_size
from bbframe.run.checkpoint import LoadedCheckpoint
from bbframe.run.configuration import Configuration
from bbframe.run.learning_rate_finder import find_learning_rate
from bbframe.run.masking import mask_secrets
from bbframe.run.processes import is_first
from bbframe.tasks.task import Task

AUTO = "auto"


def settle_automatic_options(
    plan: Configuration,
    config: dict[str, Any],
    task: Task,
    data: DataModule,
    saved: LoadedCheckpoint | None,
    folder: Path,
) -> tuple[Configuration, dict[str, Any]]:
    """The plan with numbers in the place of `auto`, and what was found: {option: number}.

    They are written into `config`, which is the record, so that a rerun does not search again; a run that goes on from
    the checkpoint `saved` keeps those of its record. Raises ValueError in one line when nothing can be found.
    """
    found: dict[str, Any] = {}
    record = {} if saved is None else saved.run.config

    def recorded(group: str, option: str) -> Any:
        value = (record.get(group) or {}).get(option)
        return None if value == AUTO else value

    if plan.data.batch_size == AUTO:
        size = recorded("data", "batch_size") or find_batch_size(plan, task, data, folder)
        plan = replace(plan, data=replace(plan.data, batch_size=size))
        data.options = replace(data.options, batch_size=size)
        found["data.batch_size"] = config["data"]["batch_size"] = size
    if plan.optim.lr == AUTO and plan.run.train:
        rate = recorded("optim", "lr") or find_learning_rate(plan, task, data, folder)
        plan = replace(plan, optim=replace(plan.optim, lr=rate))
        task.optim = plan.optim
        found["optim.lr"] = config["optim"]["lr"] = rate
    if found and is_first():
        write_text(folder / "config.yaml", dump_yaml(mask_secrets(config)))
    return plan, found
