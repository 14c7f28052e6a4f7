"""A tiny network, its images and its plan, as a run builds them before it trains."""

from __future__ import annotations

from bbframe.app.composition import composition, plain_data
from bbframe.data import make_data
from bbframe.run.configuration import parse_configuration

RESNET = [
    "backbone.layer_type=basic",
    "backbone.depths=[1,1]",
    "backbone.hidden_sizes=[8,16]",
    "backbone.embedding_size=8",
    "data.batch_size=16",
    "trainer.accelerator=cpu",
]


def built(*overrides: str):
    """The plan, the configuration, the task and the data module; a small ResNet, which has BatchNorm's statistics."""
    with composition() as compose:
        config = plain_data(compose, [*RESNET, *overrides])
    plan = parse_configuration(config)
    backbone = plan.make_backbone(None)
    data = make_data(
        plan.data,
        seed=plan.run.seed,
        preprocessing=backbone.preprocessing,
        num_channels=backbone.config.num_channels,
        stride=max(backbone.strides),
        masks=plan.head.masks,
    )
    return plan, config, plan.make_task(backbone, data.class_names), data
