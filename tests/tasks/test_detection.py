"""Every backbone under every detector; metrics against counting by hand; images and batches without boxes."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bbframe.auto import AutoBackbone
from bbframe.heads.detectors import paste
from bbframe.heads.levels import nearest_strides
from bbframe.registry import find
from bbframe.tasks.average_precision import average_precision
from bbframe.tasks.detection import Detection, to_original
from bbframe.tasks.mask_rle import decode_mask
from bbframe.tasks.optimizer_options import AdamWOptions, CosineOptions
from bbframe.tasks.task_options import DetectionOptions
from tests.tiny import names, tiny, tiny_config

WANTED = {name: find("head", name).options.wanted for name in ("fcos", "retinanet", "faster_rcnn", "mask_rcnn")}
CLASSES = ["bird", "fish", "tree"]
TIMM = "timm/test_resnet"


def net(name, **fields):
    if name == TIMM:
        pytest.importorskip("timm")
        torch.manual_seed(0)
        return AutoBackbone.from_config({"model_type": "timm_backbone", "backbone": "test_resnet", **fields})
    return tiny(name, **fields)


def detection(name, head="fcos", score_threshold=None, **options):
    declared = [4, 8, 16, 32] if name == TIMM else [stage.stride for stage in tiny_config(name).stages]
    backbone = net(name, out_strides=nearest_strides(WANTED[head], declared))
    torch.manual_seed(1)
    return Detection(
        DetectionOptions(**options),
        backbone,
        CLASSES,
        head=find("head", head).options(channels=32, score_threshold=score_threshold),
        optim=AdamWOptions(),
        schedule=CosineOptions(),
    )


def target(height, width, boxes, labels, scale=(1.0, 1.0), crowd=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    scale = torch.tensor(scale)
    sides = (boxes[:, 2:] - boxes[:, :2]) / scale
    return {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.long),
        "crowd": torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        "area": sides.prod(dim=1),
        "scale": scale,
        "size": torch.tensor([round(height / scale[1].item()), round(width / scale[0].item())]),
        "masks": masks,
    }


def batch(empty=(False, False)):
    """Two images of different sizes, each with two boxes unless it is to be empty."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.randn(3, 64, 96, generator=generator), torch.randn(3, 48, 40, generator=generator)]
    full = [
        target(64, 96, [[4, 6, 40, 30], [50, 20, 90, 60]], [0, 2]),
        target(48, 40, [[2, 3, 30, 40], [10, 10, 26, 30]], [1, 1]),
    ]
    none = [target(64, 96, [], []), target(48, 40, [], [])]
    chosen = [none[i] if empty[i] else full[i] for i in range(2)]
    return {"image": images, "target": chosen, "index": torch.tensor([0, 1])}


@pytest.mark.parametrize(
    "head", [*sorted(WANTED.keys() - {"mask_rcnn"}), pytest.param("mask_rcnn", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", [*names(), TIMM])
def test_every_backbone_trains_and_predicts_under_every_detector(name, head):
    task = detection(name, head).train()
    step = batch()
    losses = task(step["image"], step["target"])
    sum(losses.values()).backward()
    for key, parameter in task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    torch.optim.SGD(task.parameters(), lr=1e-4).step()
    task.eval()
    with torch.no_grad():
        found = task.predict(step["image"])
    for row, image in zip(found, step["image"], strict=True):
        height, width = image.shape[1:]
        assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"]) <= 100
        assert ((row["boxes"] >= 0) & (row["boxes"] <= torch.tensor([width, height, width, height]))).all()
        assert ((row["labels"] >= 0) & (row["labels"] < len(CLASSES))).all()
        assert ("masks" in row) == (head == "mask_rcnn")
        if "masks" in row:
            assert row["masks"].shape == (len(row["boxes"]), 1, 28, 28)


@pytest.mark.parametrize("empty", [(True, False), (True, True)])
@pytest.mark.parametrize("head", sorted(WANTED))
def test_images_and_batches_without_boxes_train(head, empty):
    task = detection("resnet", head).train()
    step = batch(empty)
    loss = sum(task(step["image"], step["target"]).values())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters() if p.requires_grad)


class Fixed(Detection):
    """Finds what it is told to."""

    answers: list

    def forward(self, images, targets=None):
        return self.answers if targets is None else super().forward(images, targets)


def fixed(answers, head="fcos"):
    task = detection("resnet", head)
    task.__class__ = Fixed
    task.answers = answers
    return task


def measured(task, step):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader([step], batch_size=None)
    trainer.validate(task, loader, verbose=False)
    return trainer.test(task, loader, verbose=False)[0]


def answer(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores),
    }


def test_finding_everything_is_a_map_of_one_and_unseen_classes_do_not_count():
    """Class 0 was never there; it is predicted once, and still the mean is over the classes that were."""
    step = batch()
    step["target"] = [target(64, 96, [[4, 6, 40, 30]], [1]), target(48, 40, [[2, 3, 30, 40]], [2])]
    found = [answer([[4, 6, 40, 30], [0, 0, 9, 9]], [1, 0], [0.9, 0.3]), answer([[2, 3, 30, 40]], [2], [0.8])]
    task = fixed(found)
    metrics = measured(task, step)
    assert metrics["test/mAP"] == pytest.approx(1.0)
    assert metrics["test/mAP50"] == metrics["test/mAP75"] == pytest.approx(1.0)
    assert "test/mAP_large" not in metrics
    assert task.class_scores() == {"class_ap": {"fish": 1.0, "tree": 1.0}}
    assert task.precision["bbox"].shape == (10, 101, 3)


def test_the_overlap_decides():
    """One box of two has an overlap of 0.81 with the true one: right up to 0.80, wrong from 0.85 on."""
    step = batch()
    step["target"] = [target(64, 96, [[0, 0, 40, 40]], [0]), target(48, 40, [[0, 0, 20, 20]], [0])]
    found = [answer([[0, 0, 36, 36]], [0], [0.9]), answer([[0, 0, 20, 20]], [0], [0.8])]
    metrics = measured(fixed(found), step)
    exact, half = 1.0, 51 / 101 * 0.5  # the surest is wrong: precision is 1/2 up to a recall of 1/2
    assert metrics["test/mAP50"] == metrics["test/mAP75"] == pytest.approx(1.0)
    assert metrics["test/mAP"] == pytest.approx((7 * exact + 3 * half) / 10, abs=1e-3)


def test_the_metrics_follow_from_the_matches_and_have_intervals():
    step = batch()
    step["target"] = [target(64, 96, [[0, 0, 40, 40]], [0]), target(48, 40, [[0, 0, 20, 20]], [0])]
    found = [answer([[0, 0, 36, 36], [5, 5, 9, 9]], [0, 1], [0.9, 0.4]), answer([[0, 0, 20, 20]], [0], [0.8])]
    task = fixed(found)
    metrics = measured(task, step)
    precision = average_precision(task.matches())
    assert np.nanmean(precision) == pytest.approx(metrics["test/mAP"], abs=1e-6)
    bounds = task.intervals()
    assert bounds.keys() == {"mAP", "mAP50"}
    assert bounds["mAP50"] == (1.0, 1.0)  # every sample finds everything
    low, high = bounds["mAP"]
    assert 0 <= low < metrics["test/mAP"] < high <= 1


def test_sizes_are_those_of_the_original_images():
    """A box of 60 pixels in an image enlarged fourfold is one of 15: a small object."""
    step = batch()
    step["target"] = [target(64, 96, [[0, 0, 60, 60]], [0], scale=(4.0, 4.0)), target(48, 40, [], [])]
    metrics = measured(fixed([answer([[0, 0, 60, 60]], [0], [0.9]), answer([], [], [])]), step)
    assert metrics["test/mAP_small"] == pytest.approx(1.0)
    assert "test/mAP_medium" not in metrics


def test_predictions_are_kept_in_original_pixels():
    step = batch()
    step["target"] = [target(64, 96, [[0, 0, 60, 60]], [0], scale=(2.0, 4.0)), target(48, 40, [], [])]
    task = fixed([answer([[0, 0, 60, 60]], [0], [0.9]), answer([], [], [])])
    measured(task, step)
    (index, found, truth), (other, none, _) = task.predictions
    assert (index, other, found.masks) == (0, 1, None)
    assert found.boxes.tolist() == truth.boxes.tolist() == [[0, 0, 30, 15]]
    assert len(none.boxes) == 0
    assert (found.scores.tolist(), found.labels.tolist()) == ([pytest.approx(0.9)], [0])


def test_crowds_neither_count_nor_cost():
    step = batch()
    step["target"] = [
        target(64, 96, [[4, 6, 40, 30], [50, 20, 90, 60]], [0, 0], crowd=[False, True]),
        target(48, 40, [], []),
    ]
    found = [answer([[52, 22, 70, 40], [4, 6, 40, 30]], [0, 0], [0.9, 0.8]), answer([], [], [])]
    assert measured(fixed(found), step)["test/mAP"] == pytest.approx(1.0)


def test_masks_are_pasted_at_the_size_of_the_original():
    row = {"boxes": torch.tensor([[8.0, 8, 40, 32]]), "masks": torch.ones(1, 1, 28, 28), "scores": torch.ones(1)}
    moved = to_original(row, {"scale": torch.tensor([2.0, 2.0]), "size": torch.tensor([33, 49])})
    assert moved["masks"].shape == (1, 33, 49)
    assert moved["masks"].dtype == torch.bool
    rows, columns = moved["masks"][0].nonzero().unbind(1)
    assert moved["boxes"].tolist() == [[4, 4, 20, 16]]
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (found - moved["boxes"][0]).abs().max() <= 1


def test_true_masks_found_exactly_have_a_mask_map_of_one():
    """Truth in the original's pixels, 48 x 32, the detections in those of the image that is twice as large."""
    step = batch()
    truth = target(64, 96, [[8, 8, 40, 40]], [0], scale=(2.0, 2.0))
    truth["masks"] = paste(torch.ones(1, 1, 28, 28), torch.tensor([[4.0, 4, 20, 20]]), (32, 48)).to(torch.uint8)
    step["target"] = [truth, {**target(48, 40, [], []), "masks": torch.zeros(0, 48, 40, dtype=torch.uint8)}]
    whole, none = answer([[8, 8, 40, 40]], [0], [0.9]), answer([], [], [])
    task = fixed(
        [{**whole, "masks": torch.ones(1, 1, 28, 28)}, {**none, "masks": torch.zeros(0, 1, 28, 28)}], head="mask_rcnn"
    )
    metrics = measured(task, step)
    assert metrics["test/mask_mAP"] == metrics["test/mAP"] == pytest.approx(1.0)
    (_, found, true), *_ = task.predictions
    assert torch.equal(decode_mask(found.masks[0]), truth["masks"][0].bool())
    assert true.masks == found.masks
    assert task.intervals() == dict.fromkeys(("mAP", "mAP50", "mask_mAP", "mask_mAP50"), (1.0, 1.0))


@pytest.mark.long
def test_every_loss_is_logged_and_masks_are_measured(tmp_path):
    task = detection("resnet", "mask_rcnn")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader([batch()], batch_size=None)
    trainer.fit(task, loader, loader)
    losses = {name.removeprefix("train/") for name in trainer.callback_metrics if name.startswith("train/")}
    assert losses == {
        "loss",
        "loss_objectness",
        "loss_rpn_box_reg",
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
    }
    assert {"val/mAP", "val/mask_mAP"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize("freeze", [0, "all"])
def test_a_frozen_backbone_stays_and_the_detector_learns(freeze):
    task = detection("resnet", freeze=freeze).train()
    step = batch()
    sum(task(step["image"], step["target"]).values()).backward()
    stages = task.backbone.parameter_stages()
    depth = task.backbone.num_built if freeze == "all" else freeze
    for key, parameter in task.backbone.named_parameters():
        assert (parameter.grad is None) == (stages[key] <= depth), key
    assert all(p.grad is not None for p in task.head.parameters())


@pytest.mark.long
@pytest.mark.parametrize("head", sorted(WANTED))
def test_detections_do_not_depend_on_the_images_beside_them(head):
    task = detection("convnextv2", head, score_threshold=1e-4).eval()  # global response normalisation sees the padding
    generator = torch.Generator().manual_seed(3)
    images = [
        torch.randn(3, *size, generator=generator) for size in ((75, 25), (25, 75), (80, 60), (75, 30), (25, 75))
    ]
    with torch.no_grad():
        together, alone = task(images), [task([image])[0] for image in images]
    assert sum(len(row["scores"]) for row in alone) > 0
    for one, other in zip(together, alone, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-4)
