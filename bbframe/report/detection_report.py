"""What a detection run leaves of its test: COCO results, test images with true and predicted boxes, and curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.data.boxes.box_data import DetectionDataModule
from bbframe.files import write_text
from bbframe.report.box_pictures import box_grid, precision_recall
from bbframe.report.coco_results import result_rows
from bbframe.tasks.detection import Detection
from bbframe.tasks.mask_rle import decode_mask

SHOWN = 16  # images in a picture


def write(task: Detection, data: DetectionDataModule, folder: Path) -> None:
    """Write predictions.json and the pictures of a run folder."""
    part, pictures = data.test_part, folder / "pictures"
    rows = [
        {**row, "image": data.source(part, index)}
        for index, boxes, scores, labels, masks in task.predictions
        for row in result_rows(data.image_id(part, index), boxes, scores, labels, masks, data.category_ids)
    ]
    write_text(folder / "predictions.json", json.dumps(rows) + "\n")
    generator = torch.Generator().manual_seed(0)
    shown = torch.randperm(len(task.predictions), generator=generator)[:SHOWN].tolist()
    images, boxes = [], []
    for index, found, scores, labels, masks in (task.predictions[place] for place in shown):
        truth, image = data.target(part, index), data.picture(part, index)
        images.append(image)
        row = {"truth": truth["boxes"], "truth_labels": truth["labels"], "scores": scores, "labels": labels}
        row["boxes"] = found * truth["scale"].repeat(2)
        if masks is not None:
            row["masks"] = [_shown(runs, (image.shape[1], image.shape[2])) for runs in masks]
        boxes.append(row)
    title = "Test images: true boxes dashed, predicted ones solid"
    box_grid(images, boxes, data.class_names, pictures / "boxes.png", title)
    recalls = torch.linspace(0, 1, 101)
    overlaps = [0.5 + 0.05 * i for i in range(10)]
    for kind, curves in task.precision.items():
        name = "precision_recall" if kind == "bbox" else "mask_precision_recall"
        average = [task.class_ap(kind).get(name, -1.0) for name in data.class_names]
        precision_recall(curves, recalls, overlaps, data.class_names, average, pictures / f"{name}.png")


def _shown(runs: dict[str, Any], size: tuple[int, int]) -> Tensor:
    """A mask in the size of the picture."""
    return F.interpolate(decode_mask(runs)[None, None].float(), size)[0, 0] > 0.5
