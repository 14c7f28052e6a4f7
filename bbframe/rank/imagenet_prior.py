"""The prior of a backbone: its published accuracy on ImageNet-1k, as data with its source.

The values are those of timm's results (github.com/huggingface/pytorch-image-models, results/results-imagenet.csv at
commit 7479d451a6dfd8af27f941b8e82a7402461fae80, Apache-2.0): top-1 and top-5 in per cent of the 50,000 validation
images, at the size that the file names. Models were chosen by the same images, so that the figures are optimistic.
Networks without a classifier of ImageNet-1k, such as DINOv2, have none.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("imagenet_accuracy.csv")


@cache
def read_priors() -> dict[str, dict[str, Any]]:
    """{timm's name: {"top1": per cent, "name": timm's name, "image_size": pixels}}, at the best size of each."""
    found: dict[str, dict[str, Any]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, top1, size = row["timm_name"], float(row["top1"]), int(row["img_size"])
            if name not in found or top1 > found[name]["top1"]:
                found[name] = {"top1": top1, "name": name, "image_size": size}
    return found
