"""Networks of every backbone under every head, with weights of which each output is lively; nothing is trained."""

from __future__ import annotations

import torch
from torch import nn

from bbframe.auto import AutoBackbone
from bbframe.heads.levels import nearest_strides
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.preprocessing import BoxPreprocessing, Preprocessing
from bbframe.registry import find
from bbframe.run.calibration_file import FittedCalibration
from bbframe.tasks.calibration import Calibration
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection
from bbframe.tasks.familiarity import Familiarity
from bbframe.tasks.optimizer_options import AdamWOptions, CosineOptions
from bbframe.tasks.task_options import ClassificationOptions, DetectionOptions
from tests.tiny import tiny, tiny_config

CLASSIFIERS = ("linear", "multi_level")
DETECTORS = ("fcos", "retinanet", "faster_rcnn", "mask_rcnn")
CLASSES = ["bird", "fish", "tree"]
TIMM = "timm"


def made_network(backbone, head):
    options = find("head", head).options
    fields = {}
    if head in DETECTORS:
        declared = [4, 8, 16, 32] if backbone == TIMM else [stage.stride for stage in tiny_config(backbone).stages]
        fields = {"out_strides": nearest_strides(options.wanted, declared)}
    torch.manual_seed(0)
    if backbone == TIMM:
        net = AutoBackbone.from_config({"model_type": "timm_backbone", "backbone": "test_convnext", **fields})
    else:
        net = tiny(backbone, **fields)
    channels = net.config.num_channels
    common = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    settings = {"optim": AdamWOptions(), "schedule": CosineOptions()}
    torch.manual_seed(1)
    if head in CLASSIFIERS:
        chosen = options(name=head)
        task = Classification(ClassificationOptions(), net, CLASSES, head=chosen, **settings)
        fitted = FittedCalibration(Calibration(temperature=1.5, images=20), familiarity(net.channels[-1]))
        return TrainedNetwork(task, Preprocessing(size=(64, 64), crop_pct=1.0, **common), fitted=fitted)
    chosen = options(channels=32, detections_per_image=20)
    task = Detection(DetectionOptions(), net, CLASSES, head=chosen, **settings)
    for name, parameter in task.head.model.named_parameters():
        if "logits" in name or "cls_score" in name or "bbox" in name:
            nn.init.normal_(parameter, std=0.05)
    if "rcnn" in head:  # few regions, for the sake of time
        task.head.model.rpn._pre_nms_top_n = task.head.model.rpn._post_nms_top_n = {"training": 200, "testing": 100}
    return TrainedNetwork(task, BoxPreprocessing(min_size=96, max_size=160, **common))


def familiarity(channels):
    generator = torch.Generator().manual_seed(2)
    return Familiarity(torch.eye(channels) / 3, torch.randn(3, channels, generator=generator))


def inputs(network, height, width, batch):
    channels = network.backbone.config.num_channels
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(3))
