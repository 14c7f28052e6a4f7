"""The network of a run: its backbone, fresh, pretrained or from one of our checkpoints, and the task around it."""

from __future__ import annotations

from collections.abc import Sequence

from bbframe.backbone import Backbone
from bbframe.factory import make_backbone
from bbframe.preprocessing import Preprocessing
from bbframe.registry import make
from bbframe.run.checkpoint import SavedRun
from bbframe.run.configuration import Configuration
from bbframe.tasks.task import Task


def run_backbone(plan: Configuration, saved: SavedRun | None) -> Backbone:
    """The backbone that a plan describes; of a checkpoint's run, without weights.

    Where those of a checkpoint's backbone came from at first no longer matters. What the options leave open, a
    pretrained checkpoint had supplied; the selection is theirs alone.
    """
    if saved is None:
        return make_backbone(plan.backbone_options)
    backbone = make_backbone(plan.backbone_options.completed(saved.backbone).without_weights())
    backbone.preprocessing = Preprocessing(**saved.preprocessing)
    return backbone


def make_task(plan: Configuration, backbone: Backbone, class_names: Sequence[str]) -> Task:
    """The LightningModule that a configuration's task, head, optimizer and schedule describe."""
    return make("task", plan.task, backbone, class_names, head=plan.head, optim=plan.optim, schedule=plan.schedule)
