"""What every task does to a backbone before it trains: freezing, normalisation policy, memory; and its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bbframe.backbone import Backbone
from bbframe.tasks.options import (
    AdamWOptions,
    CosineOptions,
    MultiStepOptions,
    OptimOptions,
    ScheduleOptions,
    SGDOptions,
    TuningOptions,
)


def prepare(backbone: Backbone, options: TuningOptions) -> None:
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


def keep_in_eval(backbone: Backbone, options: TuningOptions) -> None:
    """In training mode, put back into eval mode what does not train; to be called after every `train()`."""
    for module in backbone.modules():
        parameters = list(module.parameters())
        frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        if frozen or (options.batch_norm == "eval" and isinstance(module, _BatchNorm)):
            module.eval()


def parameter_groups(backbone: Backbone, head: nn.Module, options: OptimOptions) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by learning rate and weight decay.

    A weight d blocks before the last one learns at the backbone's rate times `layer_decay ** d`.
    """
    layers = backbone.parameter_layers()
    deepest = max(layers.values(), default=0)
    decaying = {
        id(m.weight)
        for m in [*backbone.modules(), *head.modules()]
        if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d))
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}

    def add(parameter: nn.Parameter, lr: float) -> None:
        if parameter.requires_grad:
            decay = options.weight_decay if id(parameter) in decaying else 0.0
            groups.setdefault((lr, decay), []).append(parameter)

    backbone_lr = options.backbone_lr or options.lr
    for name, parameter in backbone.named_parameters():
        add(parameter, backbone_lr * (options.layer_decay or 1.0) ** (deepest - layers[name]))
    for parameter in head.parameters():
        add(parameter, options.lr)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def make_optimizer(groups: list[dict[str, Any]], options: OptimOptions, fused: bool = False) -> torch.optim.Optimizer:
    """torch's optimiser over parameter groups that carry their own rates.

    `fused` asks for its kernel over all of a parameter at once: a fifth of the time on a CPU.
    """
    if isinstance(options, SGDOptions):
        return torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0, fused=fused
        )
    assert isinstance(options, AdamWOptions)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=fused)


def rate_factor(options: ScheduleOptions, total_steps: int, steps_per_epoch: float) -> Callable[[int], float]:
    """The factor on every learning rate as a function of the optimiser's step."""
    warmup = min(round(options.warmup_epochs * steps_per_epoch), total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if isinstance(options, MultiStepOptions):
            return options.gamma ** sum(step >= round(total_steps * m) for m in options.milestones)
        if not isinstance(options, CosineOptions):
            return 1.0
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        return options.final + (1 - options.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
