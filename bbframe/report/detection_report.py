"""What a detection run leaves of its test: COCO results, test images with true and predicted boxes, and curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.files import write_text
from bbframe.report.box_drawing import Detections, LabelledBoxes
from bbframe.report.coco_results import coco_results
from bbframe.report.image_grid import as_image, detection_grid
from bbframe.report.precision_recall import precision_recall
from bbframe.tasks.detection import Detection
from bbframe.tasks.mask_rle import decode_mask

SHOWN = 16  # images in a picture


def write_detection_report(task: Detection, data: DetectionDataModule, folder: Path) -> None:
    """Write predictions.json and the pictures of a run folder."""
    part, pictures = data.test_part, folder / "pictures"
    rows = [
        {**row, "image": data.source(part, index)}
        for index, found, _ in task.predictions
        for row in coco_results(data.image_id(part, index), *found, data.part_category_ids(part))
    ]
    write_text(folder / "predictions.json", json.dumps(rows) + "\n")
    order = torch.randperm(len(task.predictions), generator=torch.Generator().manual_seed(0))[:SHOWN].tolist()
    images, seen, truth = [], [], []
    for index, found, _ in (task.predictions[i] for i in order):
        target, pixels = data.target(part, index), data.picture(part, index)
        images.append(as_image(pixels.numpy()))
        truth.append(LabelledBoxes(boxes=target["boxes"].numpy(), labels=target["labels"].numpy()))
        masks = None if found.masks is None else [_resized_mask(runs, (*pixels.shape[1:],)) for runs in found.masks]
        boxes = found.boxes * target["scale"].repeat(2).numpy()
        seen.append(Detections(boxes=boxes, labels=found.labels, scores=found.scores, masks=masks))
    title = "Test images: true boxes dashed, predicted ones solid"
    detection_grid(images, seen, truth, data.class_names, pictures / "boxes.png", title)
    recalls, thresholds = np.linspace(0, 1, 101), [0.5 + 0.05 * i for i in range(10)]
    for kind, curves in task.precision.items():
        name = "precision_recall" if kind == "bbox" else "mask_precision_recall"
        average = [task.class_ap(kind).get(name, -1.0) for name in data.class_names]
        precision_recall(curves.numpy(), recalls, thresholds, data.class_names, average, pictures / f"{name}.png")


def _resized_mask(runs: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """The mask of some run lengths, resized to (H, W) of the picture."""
    return F.interpolate(decode_mask(runs)[None, None].float(), size)[0, 0].numpy() > 0.5
