"""Trained networks for the tests without a training: random weights under any head, from the tests' tiny presets."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bbframe.app.composition import composition
from bbframe.app.run_request import RunRequest
from bbframe.data.images.image_transforms import eval_preprocessing
from bbframe.predict.image_results import BoxResult
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.run.calibration_file import FittedCalibration
from bbframe.run.configuration import parse_configuration
from bbframe.tasks.calibration import Calibration
from bbframe.tasks.familiarity import Familiarity
from tests.tiny import shaken

PRESETS = Path(__file__).parents[1] / "presets"
BACKBONES = sorted(path.stem for path in (PRESETS / "backbone").glob("*.yaml"))
HEADS = ("linear", "multi_level", "fcos", "faster_rcnn", "mask_rcnn")
TIMM = ("backbone=timm", "backbone.name=resnet10t")
SMALL = ("head.channels=32", "head.detections_per_image=5", "head.score_threshold=0.0", "data.min_size=64")


def plan_of(*overrides: str):
    """The checked configuration of a command line."""
    with composition(PRESETS) as compose:
        return parse_configuration(RunRequest(compose, list(overrides)).with_text().data)


@cache
def network(*overrides: str) -> TrainedNetwork:
    """A network of three classes with random weights, calibrated if it classifies."""
    plan = plan_of(*overrides)
    torch.manual_seed(0)
    backbone = plan.make_backbone(None)
    task = plan.make_task(backbone, ["a cat", "Öl & Gas", "c"])
    if plan.task.name == "classification":  # detectors find something with the weights that they begin with
        shaken(task)
    settled = eval_preprocessing(plan.data, backbone.preprocessing, backbone.config.num_channels)
    fitted = None
    if plan.task.name == "classification":
        channels = backbone.channels[-1]
        familiarity = Familiarity(torch.eye(channels) / 3, torch.randn(3, channels))
        fitted = FittedCalibration(Calibration(temperature=1.7, images=20), familiarity)
    return TrainedNetwork(task, settled, category_ids=[7, 1, 90], fitted=fitted, origin="a network of the tests")


def under(head: str, backbone: str) -> TrainedNetwork:
    """`network` of a preset, or of timm, under a head."""
    chosen = TIMM if backbone == "timm" else (f"backbone={backbone}",)
    boxes = ("task=detection", *SMALL) if head not in ("linear", "multi_level") else ("data.image_size=64",)
    return network(*chosen, f"head={head}", *boxes)


def pictures() -> list[Image.Image]:
    """A grey image and one with colours, of different sizes, the same every time."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 70, 3), np.uint8)
    return [Image.fromarray(pixels[:90, :, 0]), Image.fromarray(pixels)]


def assert_equal_results(one, two) -> None:
    """Whether results agree bit for bit."""
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert type(a) is type(b)
        for name, value in vars(a).items():
            other = getattr(b, name)
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, (name, value, other)
    assert not isinstance(one[0], BoxResult) or sum(map(len, one))
