"""The network of a run: its backbone, fresh, pretrained or from a checkpoint of ours, and the task around it."""

from __future__ import annotations

from collections.abc import Sequence

from bbframe.backbone import Backbone
from bbframe.factory import make_backbone
from bbframe.preprocessing import Preprocessing
from bbframe.run.checkpoint import SavedRun
from bbframe.run.configuration import Plan
from bbframe.tasks.base import Task


def run_backbone(plan: Plan, saved: SavedRun | None) -> Backbone:
    """The backbone that a plan describes; of a checkpoint's run, without weights.

    Where those of a checkpoint's backbone came from at first no longer matters. What the options leave open, a
    pretrained checkpoint had supplied; the selection is theirs alone.
    """
    if saved is None:
        return make_backbone(plan.backbone_options)
    backbone = make_backbone(plan.backbone_options.completed(saved.backbone).without_weights())
    backbone.preprocessing = Preprocessing(**saved.preprocessing)
    return backbone


def make_task(plan: Plan, backbone: Backbone, class_names: Sequence[str]) -> Task:
    """The LightningModule that a plan's task, head, optimizer and schedule describe."""
    options = {"task": plan.task, "head": plan.head, "optim": plan.optim, "schedule": plan.schedule}
    if plan.task.name == "detection":
        from bbframe.tasks.detection import Detection

        return Detection(backbone, class_names, **options)
    from bbframe.tasks.classification import Classification

    return Classification(backbone, class_names, **options)
