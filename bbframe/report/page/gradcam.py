"""Grad-CAM, where a classifier looked for its answer. Selvaraju et al., arXiv:1610.02391.

The score of the predicted class is differentiated by a map; the average gradient of each channel weighs the channel,
and what speaks for the class is left. Every backbone returns maps (B, C, H, W), so it works for every backbone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bbframe.backbone_mixin import BackboneOutput
from bbframe.tasks.classification import Classification

FEWEST = 4  # cells: a map with a shorter side shows no place


class HeatMaps(NamedTuple):
    """How much each cell of a stage's map speaks for the predicted class: (B, H, W) in 0..1."""

    stage: str
    values: Tensor


def heat_maps(task: Classification, images: Tensor) -> HeatMaps | None:
    """Where the network saw the class that it predicts for normalised images (B, C, H, W).

    The last selected map is taken; when it has less than 4 cells a side, the last earlier state of the backbone that
    has them and is laid out as a map. None when no such state exists.
    """
    training = task.training
    task.eval()
    try:
        with torch.enable_grad():
            pixels = images.to(next(task.parameters()).device).requires_grad_()  # a frozen backbone has a graph too
            # forward itself: a compiled backbone would be compiled again for its states
            output = task.backbone.forward(pixels, output_hidden_states=True)
            scores = task.head(output.feature_maps)
            found = _last_map_with_cells(task, output, pixels)
            if found is None:
                return None
            stage, chosen = found
            (gradient,) = torch.autograd.grad(scores.max(dim=1).values.sum(), chosen)
    finally:
        task.train(training)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * chosen.detach()).sum(dim=1).relu().float().cpu()
    return HeatMaps(stage, heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12))


def _last_map_with_cells(task: Classification, output: BackboneOutput, pixels: Tensor) -> tuple[str, Tensor] | None:
    backbone = task.backbone
    maps = list(zip(backbone.out_features, output.feature_maps, strict=True))
    if min(maps[-1][1].shape[2:]) >= FEWEST:
        return maps[-1]
    stages = backbone.config.stages[: backbone.num_built]
    states = output.hidden_states or ()
    for stage, state in reversed(list(zip(stages, states, strict=False))):
        sides = tuple(side // stage.stride for side in pixels.shape[2:])
        if state.shape[1:] == (stage.channels, *sides) and min(sides) >= FEWEST:
            return stage.name, state
    return None
