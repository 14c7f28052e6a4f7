"""Which parts of a backbone train, and in which mode; activation checkpointing and compilation."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from bbframe.backbone import Backbone
from bbframe.tasks.task_options import TaskOptions


def prepare(backbone: Backbone, options: TaskOptions) -> None:
    """Freeze and set up a backbone as the options say; ValueError for what it cannot honour."""
    model = backbone.config.model_type
    if options.freeze != "none":
        last = backbone.num_built - 1
        depth = last if options.freeze == "all" else int(options.freeze)
        if not 0 <= depth <= last:
            names = ", ".join(f"{i}={name}" for i, name in enumerate(backbone.stage_names[: last + 1]))
            raise ValueError(f"{model}: task.freeze={depth} must be none, all or a built stage ({names})")
        stages = backbone.parameter_stages()
        for name, parameter in backbone.named_parameters():
            if stages[name] <= depth:
                parameter.requires_grad_(False)
    if options.batch_norm == "eval" and not any(isinstance(m, _BatchNorm) for m in backbone.modules()):
        raise ValueError(f"{model}: task.batch_norm=eval, but this architecture has no batch normalisation")
    if options.activation_checkpointing:
        backbone.gradient_checkpointing_enable()
    if options.compile:
        backbone.compile()


def keep_in_eval(backbone: Backbone, options: TaskOptions) -> None:
    """Put back into eval mode what does not train; to be called after every `train()`."""
    for module in backbone.modules():
        parameters = list(module.parameters())
        frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        if frozen or (options.batch_norm == "eval" and isinstance(module, _BatchNorm)):
            module.eval()
