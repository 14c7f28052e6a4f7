"""What a trained network says about one image: its class with probabilities, or the objects in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bbframe.files import visible
from bbframe.schema import whole_number

if TYPE_CHECKING:
    from PIL import Image

LISTED = 5  # classes or objects that the text of a result lists


@dataclass(frozen=True, eq=False)
class ClassResult:
    """The class of an image.

    `probabilities` (K,) float32 are of all `class_names`, calibrated if the run has found a temperature; `label` and
    `index` name the most probable class and `probability` is its own. `distance` is how far the image is from those
    of the training, in units of the distance within which 95 % of the validation images lie; None for a network that
    has not learned it.
    """

    probabilities: Tensor
    class_names: Sequence[str]
    distance: float | None = None

    @property
    def index(self) -> int:
        """The place of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.class_names[self.index]

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return float(self.probabilities.max())

    @property
    def unfamiliar(self) -> bool | None:
        """Whether the image is unlike those of the training, so that its class means little; None if unknown."""
        return None if self.distance is None else self.distance > 1

    def top(self, count: int = LISTED) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the best first; ValueError for an impossible count."""
        count = whole_number("count", count)
        shares, places = self.probabilities.topk(min(count, len(self.class_names)))
        return [(self.class_names[i], share) for i, share in zip(places.tolist(), shares.tolist(), strict=True)]

    def __str__(self) -> str:
        doubt = f"; unlike the training images (distance {self.distance:.2g}, above 1)" if self.unfamiliar else ""
        return ", ".join(f"{visible(name)} {share:.1%}" for name, share in self.top(3)) + doubt

    def __repr__(self) -> str:
        return f"ClassResult({self})"


@dataclass(frozen=True, eq=False)
class BoxResult:
    """The objects in an image, the best first.

    `boxes` (N, 4) float32 are xyxy in the image's own pixels, `scores` (N,) float32, `indices` (N,) int64 the places
    of their classes, `masks` (N, H, W) bool or None for a network without masks, `size` the image's (width, height).
    """

    boxes: Tensor
    scores: Tensor
    indices: Tensor
    masks: Tensor | None
    class_names: Sequence[str]
    size: tuple[int, int]

    @property
    def labels(self) -> list[str]:
        """The class name of each object."""
        return [self.class_names[i] for i in self.indices.tolist()]

    def above(self, threshold: float) -> BoxResult:
        """The objects with a score of `threshold` or more."""
        kept = self.scores >= threshold
        masks = None if self.masks is None else self.masks[kept]
        return BoxResult(self.boxes[kept], self.scores[kept], self.indices[kept], masks, self.class_names, self.size)

    def draw(self, image: Image.Image) -> Image.Image:
        """The image, of this result's size, with boxes, labels, scores and masks drawn onto it."""
        from bbframe.imaging.image_input import as_pictures
        from bbframe.report.box_drawing import Detections, draw_detections

        (picture,), _ = as_pictures(image)
        if picture.size != self.size:
            raise ValueError(f"draw: the image has {picture.size} pixels, the result belongs to one of {self.size}")
        found = Detections(
            boxes=self.boxes.numpy(),
            labels=self.indices.numpy().astype(int),
            scores=self.scores.numpy(),
            masks=None if self.masks is None else list(self.masks.numpy()),
        )
        return draw_detections(picture, found, self.class_names, 0.0)

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        if not len(self):
            return "no objects"
        rows = zip(self.labels, self.scores.tolist(), self.boxes.tolist(), strict=True)
        told = [f"{visible(name)} {score:.1%} at {np.round(box).astype(int).tolist()}" for name, score, box in rows]
        more = f" and {len(told) - LISTED} more" if len(told) > LISTED else ""
        return ", ".join(told[:LISTED]) + more

    def __repr__(self) -> str:
        return f"BoxResult({self})"


def box_result(
    answer: dict[str, Tensor], scale: tuple[float, float], size: tuple[int, int], class_names: Sequence[str]
) -> BoxResult:
    """The detections in a prepared image as those of the image of a (width, height) that it was made from.

    `answer` has `boxes` (N, 4), `scores`, `labels` and, if any, `masks` (N, 1, 28, 28), as `Detection.predict` gives.
    """
    from bbframe.heads.detectors import paste

    answer = {key: value.detach().cpu() for key, value in answer.items()}
    boxes = answer["boxes"].float() / torch.tensor([*scale, *scale])
    masks = None
    if "masks" in answer:
        empty = torch.zeros(0, size[1], size[0], dtype=torch.bool)
        masks = paste(answer["masks"].float(), boxes, (size[1], size[0])) if len(boxes) else empty
    return BoxResult(boxes, answer["scores"].float(), answer["labels"].long(), masks, class_names, size)
