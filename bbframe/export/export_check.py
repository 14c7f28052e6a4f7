"""An export compared with PyTorch on real images, and how long both take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

TOLERANCES = {"probabilities": 1e-3, "distance": 1e-2, "scores": 1e-3, "boxes": 0.5, "masks": 1e-2}
ROUNDED = 20  # times that, where pixels are prepared in the graph and may differ from PIL's by a level
FOUND_AGAIN = 0.98  # of the detections that PyTorch finds; at a threshold, rounding may turn one over
REPEATS = 7

Outputs = dict[str, Tensor]


def compare_outputs(ours: Outputs, theirs: Outputs) -> dict[str, Any]:
    """How far an export's outputs are from PyTorch's: the worst and the mean difference of each, and what agrees.

    Classes: `agreement` is the share of images with the same best class. Detections: the share found again, which
    means a box of the same label, overlapping by 0.9 or within half a pixel, and a score within 0.01.
    """
    if "probabilities" in ours:
        same = ours["probabilities"].argmax(1) == theirs["probabilities"].argmax(1)
        pairs = {name: (ours[name], theirs[name]) for name in ours}
        counts = len(same), int(same.sum())
    else:
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
        total = again = 0
        for i in range(len(ours["count"])):
            many, found = int(ours["count"][i]), int(theirs["count"][i])
            total += max(many, found)
            for j, k in same_detections(ours, theirs, i):
                again += 1
                for name in ("boxes", "scores", "masks"):
                    if name in ours:
                        kept.setdefault(name, []).append((ours[name][i, j], theirs[name][i, k]))
        pairs = {name: tuple(map(torch.stack, zip(*rows, strict=True))) for name, rows in kept.items()}  # type: ignore
        counts = total, again
    differences = {name: (a - b).abs().double() for name, (a, b) in pairs.items()}
    return {
        "compared": counts[0],
        "agreeing": counts[1],
        "worst": {name: x.max().item() for name, x in differences.items()},
        "mean": {name: x.mean().item() for name, x in differences.items()},
    }


def same_detections(ours: Outputs, theirs: Outputs, image: int) -> list[tuple[int, int]]:
    """Pairs of detections of an image that are the same in both, each used once."""
    many, found = int(ours["count"][image]), int(theirs["count"][image])
    if not many or not found:
        return []
    overlaps = box_iou(ours["boxes"][image, :many], theirs["boxes"][image, :found])
    scores = (ours["scores"][image, :many, None] - theirs["scores"][image, None, :found]).abs()
    labels = ours["labels"][image, :many, None] == theirs["labels"][image, None, :found]
    apart = (ours["boxes"][image, :many, None] - theirs["boxes"][image, None, :found]).abs().amax(2)
    near = (overlaps > 0.9) | (apart < 0.5)  # a box that the border has cut to nothing overlaps none
    likeness = torch.where(labels & (scores < 0.01) & near, -apart - 1000 * scores, -1e9)
    pairs = []
    for j in range(many):
        best = int(likeness[j].argmax())
        if likeness[j, best] > -1e8:
            pairs.append((j, best))
            likeness[:, best] = -1e9
    return pairs


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several comparisons as one."""
    names = sorted({name for one in results for name in one["worst"]})
    weights = [one["compared"] for one in results]
    return {
        "compared": sum(weights),
        "agreeing": sum(one["agreeing"] for one in results),
        "worst": {name: max(one["worst"].get(name, 0.0) for one in results) for name in names},
        "mean": {
            name: sum(one["mean"].get(name, 0.0) * weight for one, weight in zip(results, weights, strict=True))
            / max(1, sum(weights))
            for name in names
        },
    }


def tolerances(inside: bool) -> dict[str, float]:
    """The largest differences that are put up with, with the preprocessing `inside` or not; boxes in pixels."""
    return {name: value * (ROUNDED if inside else 1) for name, value in TOLERANCES.items()}


def demand_agreement(name: str, result: dict[str, Any], allowed: dict[str, float]) -> None:
    """Raise ValueError, with the numbers, for an export that is not what PyTorch computes."""
    for output, worst in result["worst"].items():
        if not worst <= allowed[output]:
            raise ValueError(
                f"export: {name}: {output} differ by up to {worst:.3g} from PyTorch's, more than {allowed[output]:g}; "
                "nothing was written"
            )
    if result["agreeing"] < FOUND_AGAIN * result["compared"]:
        raise ValueError(
            f"export: {name}: only {result['agreeing']} of {result['compared']} results are PyTorch's; nothing was "
            "written"
        )


def milliseconds(run: Callable[[Tensor], Any], images: Tensor) -> float:
    """The median time of a call in milliseconds."""
    run(images)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(images)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[REPEATS // 2]
