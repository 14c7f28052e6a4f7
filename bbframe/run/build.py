"""From a plan to its network: the backbone, fresh, loaded or of a checkpoint of ours, and the task around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bbframe.auto import Backbone
from bbframe.factory import make_backbone
from bbframe.preprocessing import Preprocessing
from bbframe.registry import make
from bbframe.run.configuration import Configuration
from bbframe.tasks.task import Task


def make_task(plan: Configuration, backbone: Backbone, class_names: Sequence[str]) -> Task:
    """The LightningModule that a plan's task, head, optimiser and schedule describe."""
    options = {"head": plan.head, "optim": plan.optim, "schedule": plan.schedule}
    return make("task", plan.task, backbone, class_names, **options)


def saved_backbone(options: Mapping[str, Any], saved: Mapping[str, Any]) -> Backbone:
    """The backbone of one of our checkpoints, without weights: where they came from at first no longer matters.

    What the options leave open, a pretrained checkpoint had supplied; the selection is theirs alone.
    """
    config = saved["bbframe"]["backbone"]
    filled = {**options, "pretrained": False}
    if config["model_type"] == options["model_type"]:
        filled = {key: config.get(key) if value is None else value for key, value in filled.items()}
        filled.update({key: options.get(key) for key in ("out_features", "out_indices", "out_strides")})
    backbone = make_backbone(filled)
    backbone.preprocessing = Preprocessing(**saved["bbframe"]["preprocessing"])
    return backbone
