"""Detections made from the objects of images: most right, some wrong in each way."""

from __future__ import annotations

import numpy as np
import torch

from bbframe.tasks.detection import true_objects
from bbframe.tasks.detection_matches import FoundObjects
from bbframe.tasks.mask_rle import encode_mask
from bbframe.tasks.precision_metric import DetectedImage


def made_detections(data, seed=0):
    """A `DetectedImage` for each tested image of a data module."""
    draw, part = np.random.default_rng(seed), data.test_part
    rows = []
    for index in range(data.counts[part]):
        truth = true_objects(data.parts[part].target(index, data.masks))
        height, width = data.parts[part].target(index, False)["size"].tolist()
        boxes, scores, labels, masks = [], [], [], []
        for number, box in enumerate(truth.boxes.astype(float)):
            kind, side = draw.random(), box[2:] - box[:2]
            if kind < 0.1:
                continue  # missed
            moved = box + draw.normal(0, 0.03, 4) * side[[0, 1, 0, 1]]
            if kind < 0.25:
                moved = box + 0.4 * side[[0, 1, 0, 1]]  # badly placed
            label = truth.labels[number] if kind > 0.4 else draw.integers(data.num_classes)
            copies = 2 if kind > 0.9 else 1
            for _ in range(copies):
                boxes.append(moved)
                scores.append(draw.beta(5, 2))
                labels.append(label)
                masks.append(truth.masks[number] if truth.masks else None)
        for _ in range(draw.integers(0, 4)):  # background
            corner = draw.uniform(0, (width - 20, height - 20))
            boxes.append([*corner, *(corner + draw.uniform(8, 20, 2))])
            scores.append(draw.beta(1, 4))
            labels.append(draw.integers(data.num_classes))
            masks.append(encode_mask(torch.zeros(height, width)))
        found = np.array(boxes, float).reshape(-1, 4).clip(0, (width, height, width, height))
        rows.append(
            DetectedImage(
                index,
                FoundObjects(found, np.array(scores), np.array(labels, int), masks if data.masks else None),
                truth,
            )
        )
    return rows
