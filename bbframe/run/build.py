"""From a plan to its network: the backbone, fresh, loaded or of a checkpoint of ours, and the task around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bbframe.backbone import Backbone
from bbframe.factory import BackboneOptions, make_backbone
from bbframe.preprocessing import Preprocessing
from bbframe.run.configuration import Plan
from bbframe.tasks.base import Task


def make_task(plan: Plan, backbone: Backbone, class_names: Sequence[str]) -> Task:
    """The LightningModule that a plan's task, head, optimiser and schedule describe."""
    options = {"task": plan.task, "head": plan.head, "optim": plan.optim, "schedule": plan.schedule}
    if plan.task.name == "detection":
        from bbframe.tasks.detection import Detection

        return Detection(backbone, class_names, **options)
    from bbframe.tasks.classification import Classification

    return Classification(backbone, class_names, **options)


def saved_backbone(options: BackboneOptions, saved: Mapping[str, Any]) -> Backbone:
    """The backbone of one of our checkpoints, without weights: where they came from at first no longer matters.

    What the options leave open, a pretrained checkpoint had supplied; the selection is theirs alone.
    """
    backbone = make_backbone(options.completed(saved["bbframe"]["backbone"]).without_weights())
    backbone.preprocessing = Preprocessing(**saved["bbframe"]["preprocessing"])
    return backbone
