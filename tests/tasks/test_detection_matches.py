"""Matches and the average precision from them, against COCO's own evaluation on random images."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster

from bbframe.tasks.average_precision import average_precision
from bbframe.tasks.detection_matches import SIZES, FoundObjects, TrueObjects, match_images
from bbframe.tasks.mask_rle import encode_mask

CLASSES = 4
SIDES = {"small": 28, "medium": 80, "large": 220}  # of objects, in pixels


def boxes(draw, count, side, frame):
    corner = draw.uniform(0, frame - 10, (count, 2))
    return np.hstack([corner, corner + draw.uniform(6, side, (count, 2))]).clip(0, frame)


def scene(draw, frame=300, masks=False):
    """An image with up to 6 objects, some of them crowds, and up to 25 detections, most of them near an object."""
    count = draw.integers(0, 7)
    side = draw.choice(list(SIDES.values()))
    true = boxes(draw, count, side, frame)
    labels, crowd = draw.integers(0, CLASSES - 1, count), draw.random(count) < 0.15
    near = draw.integers(0, max(count, 1), draw.integers(0, 18)) if count else np.zeros(0, int)
    moved = true[near] + draw.normal(0, 0.12, (len(near), 4)) * (true[near, 2:] - true[near, :2]).repeat(2, 1)
    found = np.vstack([moved, boxes(draw, draw.integers(0, 8), side, frame)]).clip(0, frame)
    found = np.hstack([np.minimum(found[:, :2], found[:, 2:] - 1), found[:, 2:]]).clip(0, frame)
    said = np.append(labels[near], draw.integers(0, CLASSES, len(found) - len(near)))
    said = np.where(draw.random(len(said)) < 0.2, draw.integers(0, CLASSES, len(said)), said)
    scores = draw.random(len(found)).round(2)  # some are equal
    truth = TrueObjects(true, labels, crowd, (true[:, 2:] - true[:, :2]).prod(1))
    seen = FoundObjects(found, scores, said)
    if masks:
        truth, seen = (row._replace(masks=[ellipse(box, frame) for box in row.boxes]) for row in (truth, seen))
    return seen, truth


def ellipse(box, frame):
    y, x = np.mgrid[:frame, :frame] + 0.5
    middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 0.5)
    return encode_mask(torch.from_numpy(((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 <= 1))


def cocos_precision(images, most, kind="bbox"):
    """The precision (T, R, K, sizes) that COCO's evaluation gives: all sizes, small, medium, large."""
    true, seen = [], []
    for number, (found, truth) in enumerate(images):
        for i, (left, top, right, bottom) in enumerate(truth.boxes):
            row = {
                "image_id": number,
                "category_id": int(truth.labels[i]),
                "bbox": [left, top, right - left, bottom - top],
            }
            row |= {"id": len(true) + 1, "area": truth.area[i], "iscrowd": int(truth.crowd[i])}
            true.append(row | ({"segmentation": truth.masks[i]} if truth.masks else {}))
        for i, (left, top, right, bottom) in enumerate(found.boxes):
            row = {"image_id": number, "category_id": int(found.labels[i]), "score": found.scores[i]}
            row["bbox"] = [left, top, right - left, bottom - top]
            seen.append(row if kind == "bbox" else row | {"segmentation": found.masks[i]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(
            {
                "images": [{"id": i, "height": 300, "width": 300} for i in range(len(images))],
                "annotations": true,
                "categories": [{"id": k} for k in range(CLASSES)],
            }
        )
        evaluation = COCOeval_faster(coco, coco.loadRes(seen), iouType=kind)
        evaluation.params.maxDets = [1, 2, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def mean_of_classes(precision):
    """(T, K) of (T, R, K), NaN for a class without objects."""
    return np.where(precision.min(1) < 0, np.nan, precision.mean(1))


@pytest.mark.parametrize("most", [100, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_average_precision_is_cocos(seed, most):
    draw = np.random.default_rng(seed)
    images = [scene(draw) for _ in range(25)]
    expected = cocos_precision(images, most)
    whole = average_precision(match_images(images, CLASSES, most=most))
    np.testing.assert_allclose(whole, mean_of_classes(expected[..., 0]), atol=1e-9)
    assert np.isnan(whole).all(0).tolist() == [False, False, False, True]  # no object is of the last class
    for i, (size, areas) in enumerate(SIZES.items(), 1):
        part = average_precision(match_images(images, CLASSES, most=most, areas=areas))
        np.testing.assert_allclose(part, mean_of_classes(expected[..., i]), atol=1e-9, err_msg=size)


@pytest.mark.parametrize("seed", range(2))
def test_the_average_precision_of_masks_is_cocos(seed):
    draw = np.random.default_rng(seed)
    images = [scene(draw, masks=True) for _ in range(10)]
    expected = cocos_precision(images, 100, "segm")
    found = average_precision(match_images(images, CLASSES, masks=True))
    np.testing.assert_allclose(found, mean_of_classes(expected[..., 0]), atol=1e-9)
