"""Object detection, with instance masks where the head gives them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bbframe.backbone import Backbone
from bbframe.heads.detectors import DetectionHead, pad, paste
from bbframe.heads.head_options import DetectionHeadOptions
from bbframe.registry import PartOptions
from bbframe.tasks.average_precision import precision_intervals
from bbframe.tasks.detection_matches import MOST, FoundObjects, Matches, TrueObjects, match_images
from bbframe.tasks.mask_rle import RLE, encode_mask
from bbframe.tasks.optimizer_options import OptimOptions
from bbframe.tasks.precision_metric import DetectedImage, RowPrecision
from bbframe.tasks.task import Task
from bbframe.tasks.task_options import DetectionOptions

# what torchmetrics calls the metrics of the COCO benchmark, and what they are called here
NAMES = {
    "map": "mAP",
    "map_50": "mAP50",
    "map_75": "mAP75",
    "map_small": "mAP_small",
    "map_medium": "mAP_medium",
    "map_large": "mAP_large",
}
TRUTH = ("boxes", "labels", "area", "crowd", "masks")


class Detection(Task):
    """A backbone and a detector, trained on batches {"image", "target", "index"} of images of any size.

    `image` is a list of normalised images (C, H, W), `target` a list of dicts as `bbframe.data` describes them. The
    metrics are COCO's: the mean average precision over the IoU thresholds 0.50 to 0.95 (mAP), at 0.50 and at 0.75, and
    for small, medium and large objects. After a test, `predictions` holds a `DetectedImage` for every image, and
    `precision` the curves of boxes and masks: {"bbox" or "segm": (10 thresholds, 101 recalls, classes)}, -1 for a
    class without objects.
    """

    monitor = "val/mAP"
    head: DetectionHead
    predictions: list[DetectedImage]

    def __init__(
        self,
        options: DetectionOptions,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        head: DetectionHeadOptions,
        optim: OptimOptions,
        schedule: PartOptions,
    ):
        super().__init__(options, backbone, class_names, head=head, optim=optim, schedule=schedule)
        self.kinds: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm") if head.masks else ("bbox",)
        self.most = max(MOST, head.detections_per_image)
        shared: dict[str, Any] = {
            "iou_type": self.kinds,
            "backend": "faster_coco_eval",
            "max_detection_thresholds": [1, 10, self.most],
            "sync_on_compute": False,
        }
        self.val_metric = RowPrecision(**shared)
        self.test_metric = RowPrecision(**shared, extended_summary=True)
        self.validated: list[DetectedImage] = []
        self.precision: dict[str, Tensor] = {}

    def forward(self, images: Sequence[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Detections in normalised images (C, H, W) of any sizes, or, with `targets`, the losses by their names.

        Detections in an image do not depend on the images beside it: those of one padded size share a batch.
        """
        if targets is not None:
            x, sizes = pad(list(images), self.head.multiple)
            return self.head(self.backbone(x).feature_maps, sizes, targets)
        alike = defaultdict(list)
        for place, image in enumerate(images):
            alike[tuple(-(-side // self.head.multiple) for side in image.shape[-2:])].append(place)
        found: list[dict[str, Tensor]] = [{}] * len(images)
        for places in alike.values():
            x, sizes = pad([images[place] for place in places], self.head.multiple)
            for place, row in zip(places, self.head(self.backbone(x).feature_maps, sizes), strict=True):
                found[place] = row
        return found

    def predict(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Each image's `boxes` (N, 4) in its pixels, `scores` and `labels` (N,), and `masks` (N, 1, 28, 28) if any.

        `to_original` turns them into boxes and masks of the image that this one was made from.
        """
        return self(images)

    def class_scores(self) -> dict[str, dict[str, float]]:
        names = {"bbox": "class_ap", "segm": "class_mask_ap"}
        return {names[kind]: self.class_ap(kind) for kind in self.precision}

    def class_ap(self, kind: str = "bbox") -> dict[str, float]:
        """The average precision of each class that was there to be found, of its boxes or its masks ("segm")."""
        mean = self.precision[kind].mean(dim=(0, 1)).tolist()
        return {name: round(ap, 6) for name, ap in zip(self.class_names, mean, strict=True) if ap >= 0}

    def matches(self, kind: str = "bbox", **options: Any) -> Matches:
        """The detections of the tested images matched with their objects, by boxes or by masks ("segm")."""
        images = [(row.found, row.truth) for row in self.predictions]
        return match_images(images, len(self.class_names), masks=kind == "segm", most=self.most, **options)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals {name: (low, high)} of `mAP` and `mAP50`, with masks also of `mask_mAP` and `mask_mAP50`."""
        return {
            f"mask_{name}" if kind == "segm" else name: bounds
            for kind in self.kinds
            for name, bounds in precision_intervals(self.matches(kind)).items()
        }

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self(batch["image"], batch["target"])
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        size = len(batch["image"])
        for name, value in losses.items():
            self.log_mean(f"train/{name}", value, size)
        self.log_mean("train/loss", loss, size, prog_bar=True)
        return self.finite(loss, batch_idx)

    def on_validation_epoch_start(self) -> None:
        self.validated = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.validated += self._rows(batch)

    def on_validation_epoch_end(self) -> None:
        rows, self.validated = self.in_first_process(self.validated), []
        self._log_metric("val", self.val_metric, sorted(rows, key=lambda row: row.image))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.predictions += self._rows(batch)

    def on_test_epoch_end(self) -> None:
        self.gather_predictions()
        computed = self._log_metric("test", self.test_metric, self.predictions)
        if not self.trainer.is_global_zero:
            return
        seen = computed["classes"].reshape(-1).long().cpu()
        for kind in self.kinds:
            precision = computed[f"{kind}_precision" if len(self.kinds) > 1 else "precision"].cpu()
            curves = torch.full((*precision.shape[:2], len(self.class_names)), -1.0)
            curves[..., seen] = precision[..., 0, -1].float()  # objects of any size, and all detections that count
            self.precision[kind] = curves

    def _rows(self, batch: dict[str, Any]) -> list[DetectedImage]:
        """A batch's detections and objects; none of a batch that no result may count."""
        found = self(batch["image"])
        return [] if "stand_in" in batch else detected_images(batch, found)

    def _log_metric(self, part: str, metric: RowPrecision, rows: list[DetectedImage]) -> dict[str, Tensor]:
        """Log the metrics of the rows, which the first process has: it computes them and tells the others.

        Returns all that was computed, in the first process.
        """
        computed: dict[str, Tensor] = {}
        if self.trainer.is_global_zero:
            metric.update(rows)
            computed = metric.compute()
            metric.reset()
        prefixes = {kind: f"{kind}_" if len(self.kinds) > 1 else "" for kind in self.kinds}
        names = [(kind, ours, prefixes[kind] + theirs) for kind in self.kinds for theirs, ours in NAMES.items()]
        values = [computed[theirs].item() for *_, theirs in names] if computed else []
        if self.processes > 1:
            values = self.trainer.strategy.broadcast(values)
        for (kind, ours, _), value in zip(names, values, strict=True):
            if value > -1 or ours == "mAP":  # -1: there is no such object
                name = f"mask_{ours}" if kind == "segm" else ours
                shown = value if value > -1 else math.nan
                self.log(f"{part}/{name}", shown, prog_bar=name == "mAP", sync_dist=True)
        return computed


def detected_images(batch: dict[str, Any], found: Sequence[dict[str, Tensor]]) -> list[DetectedImage]:
    """What was `found` in the images of a data module's batch, and what is in them, in original pixels."""
    return [
        DetectedImage(index, found_objects(to_original(row, target)), true_objects(original_target(target)))
        for index, row, target in zip(batch["index"].tolist(), found, batch["target"], strict=True)
    ]


def to_original(row: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detections in a resized image as those of the original, whose `size` and `scale` the target states.

    Masks become (N, H, W) bool; what is neither box nor mask stays.
    """
    moved = {**row, "boxes": row["boxes"].float() / target["scale"].repeat(2)}
    if "masks" in row:
        height, width = target["size"].tolist()
        moved["masks"] = paste(row["masks"], moved["boxes"], (height, width))
    return moved


def original_target(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objects of a data module's target in the original image."""
    original = {**target, "boxes": target["boxes"] / target["scale"].repeat(2)}
    return {key: original[key] for key in TRUTH if key in original}


def found_objects(row: dict[str, Tensor]) -> FoundObjects:
    """Detections in original pixels as arrays and run lengths."""
    boxes, scores, labels = (row[key].cpu().numpy() for key in ("boxes", "scores", "labels"))
    return FoundObjects(boxes, scores, labels, _encoded(row))


def true_objects(target: dict[str, Tensor]) -> TrueObjects:
    """The objects of a target in original pixels as arrays and run lengths."""
    boxes, labels, crowd, area = (target[key].cpu().numpy() for key in ("boxes", "labels", "crowd", "area"))
    return TrueObjects(boxes, labels, crowd, area, _encoded(target))


def _encoded(row: dict[str, Tensor]) -> list[RLE] | None:
    return [encode_mask(mask) for mask in row["masks"].to("cpu", torch.uint8)] if "masks" in row else None
