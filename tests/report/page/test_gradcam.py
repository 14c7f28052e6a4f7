"""Grad-CAM: the heat is where the predicted class is, for every backbone, and nothing of the task changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bbframe.backbone_mixin import BackboneOutput
from bbframe.report.page.gradcam import FEWEST, heat_maps
from bbframe.selection import Stage
from tests.tiny import names, tiny


class Colours(nn.Module):
    """A backbone whose map holds the mean of each colour in cells of 4 x 4 pixels; then one of one cell."""

    out_features, num_built = ["cells", "all"], 2

    def __init__(self, selected):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)
        self.selected = selected
        self.out_features = [("cells", "all")[i] for i in selected]
        self.config = type("Config", (), {"stages": [Stage("cells", 3, 4), Stage("all", 3, 32)]})

    def forward(self, x, output_hidden_states=False):
        cells = F.avg_pool2d(x, 4) * self.scale
        states = (cells, F.adaptive_avg_pool2d(cells, 1))
        return BackboneOutput(tuple(states[i] for i in self.selected), states if output_hidden_states else None)


class Looking(nn.Module):
    """A classifier of the three colours."""

    def __init__(self, selected=(0,)):
        super().__init__()
        self.backbone = Colours(selected)

    def head(self, maps):
        return maps[-1].mean(dim=(2, 3))


@pytest.mark.parametrize(("selected", "stage"), [((0,), "cells"), ((1,), "cells"), ((0, 1), "cells")])
def test_the_heat_is_where_the_predicted_class_is(selected, stage):
    images = torch.zeros(2, 3, 32, 32)
    images[0, 1, :8, 16:24] = 1  # green, above and right
    images[1, 2, 24:, :4] = 1  # blue, below and left
    found = heat_maps(Looking(selected), images)
    assert found.stage == stage
    expected = torch.zeros(2, 8, 8)
    expected[0, :2, 4:6] = 1
    expected[1, 6:, :1] = 1
    assert torch.allclose(found.values, expected, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = heat_maps(Looking(), images).values
    for image, heat in zip(images, together, strict=True):
        assert torch.allclose(heat_maps(Looking(), image[None]).values[0], heat, atol=1e-5)


def test_a_map_of_few_cells_without_an_earlier_one_gives_nothing():
    assert heat_maps(Looking((1,)), torch.rand(1, 3, 12, 12)) is None


@pytest.mark.parametrize("name", names())
def test_every_backbone_can_be_looked_into(name):
    net = tiny(name)
    task = nn.Module()
    task.backbone = net
    task.head = ClassifierHead(net.channels)
    net.requires_grad_(False)
    task.train()
    side = FEWEST * max(net.strides)
    found = heat_maps(task, torch.rand(2, net.config.num_channels, side, side))
    assert found.stage == net.out_features[-1]
    assert found.values.shape == (2, FEWEST, FEWEST)
    assert found.values.isfinite().all()
    assert found.values.amin() >= 0
    assert found.values.amax() <= 1
    assert task.training
    assert all(parameter.grad is None for parameter in task.parameters())


class ClassifierHead(nn.Module):
    """As our linear head."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels[-1], 3)

    def forward(self, maps):
        return self.fc(maps[-1].mean(dim=(2, 3)))
