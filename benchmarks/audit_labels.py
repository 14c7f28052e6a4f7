"""Does the audit find wrong labels and leaks? The digits, with both put in on purpose.

    python -m benchmarks.audit_labels [--seeds 5] [--epochs 4] [--json FILE]

In each seed 2 % of the 1,797 labels are changed to another class at random, and then 10 images are copied from train
to test, as they are labelled by then. Counted is which share of the changed labels stands within the first 5 % of the
list of likely wrong labels (a copy stands for its image), how many suggestions are the true class, and how many copies
are told as leaks. Images are compared by their pixels and by small backbones, each untrained and pretrained on images
that are no digits: letters of a font, turned, blurred and reduced to 8x8 pixels, on which it learns the 26 classes for
a few epochs. Prints a table in Markdown: mean over the seeds, then the worst seed.
"""

from __future__ import annotations

import argparse
import json
import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional as F

from bbframe.audit.data_audit import audit_data
from bbframe.audit.findings import Finding
from bbframe.auto import AutoBackbone, backbone_class
from bbframe.backbone import Backbone
from bbframe.data import make_data
from bbframe.data.data_module import DataModule
from bbframe.data.images.digits import Scans
from bbframe.preprocessing import Preprocessing
from bbframe.registry import parse_part

SWAPPED, COPIED, LOOKED_AT = 0.02, 10, 0.05
PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
SMALL: dict[str, dict[str, Any]] = {
    "resnet": {
        "embedding_size": 32,
        "hidden_sizes": (32, 64, 96, 128),
        "depths": (1, 1, 1, 1),
        "layer_type": "basic",
        "out_features": ("stage2",),
    },
    "convnextv2": {"hidden_sizes": (32, 64, 96, 128), "depths": (1, 1, 2, 1), "out_features": ("stage2",)},
    "swin": {
        "embed_dim": 48,
        "depths": (2, 2),
        "num_heads": (3, 6),
        "window_size": 4,
        "patch_size": 2,
        "image_size": 32,
        "out_features": ("stage2",),
    },
    "dinov2": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "patch_size": 4,
        "image_size": 32,
        "out_features": ("stage4",),
    },
}


def main() -> None:
    """Measure, print the table, and write the rows if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row("pixels", "-", None, options.seeds)]
    print(table(rows[-1:]).splitlines()[0], table(rows[-1:]).splitlines()[1], sep="\n")
    print(table(rows[-1:]).splitlines()[2], flush=True)
    letters = letter_images(seed=0)
    for name, fields in SMALL.items():
        torch.manual_seed(0)
        net = AutoBackbone.from_config(backbone_class(name).config_class.from_dict(fields))
        net.preprocessing = PREPROCESSING
        rows.append(row(name, "untrained", net, options.seeds))
        print(table(rows[-1:]).splitlines()[2], flush=True)
        pretrain(net, *letters, epochs=options.epochs)
        rows.append(row(name, "letters", net, options.seeds))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def row(name: str, weights: str, net: Backbone | None, seeds: int) -> dict[str, Any]:
    """What is found in each seed by one kind of features."""
    found = [spoiled_and_found(net, seed) for seed in range(seeds)]
    return {"features": name, "weights": weights, **{key: [one[key] for one in found] for key in found[0]}}


def spoiled_and_found(net: Backbone | None, seed: int) -> dict[str, float]:
    """Spoil the digits, audit them, and count what was found."""
    data, swapped, copied = spoiled_digits(seed)
    started = time.perf_counter()
    audit = audit_data(data, net, features="a small backbone")
    seconds = time.perf_counter() - started
    count = len(audit.traits.places)
    doubts = [finding for finding in audit.findings if finding.problem == "wrong label"]
    stands_for = {
        finding.number: finding.twin
        for finding in audit.findings
        if finding.action == "exclude" and finding.twin is not None
    }
    first: dict[int, Finding] = {finding.number: finding for finding in doubts[: round(LOOKED_AT * count)]}
    places = {place: number for number, place in enumerate(audit.traits.places)}
    numbers = [(place, places[place]) for place in swapped]
    hits = [(place, first.get(stands_for.get(number, number))) for place, number in numbers]
    right = [data.class_names[swapped[place]] == hit.suggestion for place, hit in hits if hit is not None]
    leaks = {finding.image for finding in audit.findings if finding.problem == "leak"}
    return {
        "found": sum(hit is not None for _, hit in hits) / len(hits),
        "suggested": float(np.mean(right)) if right else 0.0,
        "copies": len(leaks & copied) / len(copied),
        "confirmed": audit.confirmed or 0.0,
        "seconds": seconds,
    }


def spoiled_digits(seed: int) -> tuple[DataModule, dict[tuple[str, int], int], set[str]]:
    """The digits with wrong labels, {place: true class}, and with copies in test, the names of their originals."""
    options = parse_part("data", {"name": "digits"}, "data")
    data = make_data(options, seed=0, preprocessing=PREPROCESSING, num_channels=3, stride=8)
    random = np.random.default_rng(seed)
    places = [(part, index) for part, count in data.counts.items() for index in range(count)]
    swapped: dict[tuple[str, int], int] = {}
    for number in random.choice(len(places), round(SWAPPED * len(places)), replace=False).tolist():
        part, index = places[number]
        labels: Any = data.parts[part].labels
        swapped[part, index] = labels[index]
        labels[index] = (labels[index] + int(random.integers(1, 10))) % 10
    train, test = data.parts["train"], data.parts["test"]
    assert isinstance(train, Scans)
    assert isinstance(test, Scans)
    chosen = random.choice(data.counts["train"], COPIED, replace=False).tolist()
    joined = Scans([*test.indices, *(train.indices[i] for i in chosen)])
    joined.labels = [*test.labels, *(train.labels[i] for i in chosen)]
    data.parts["test"], data.counts["test"] = joined, len(joined.labels)
    return data, swapped, {train.name(i) for i in chosen}


def letter_images(seed: int, each: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Letters of Pillow's font as scans have them, normalised: images (n, 3, 32, 32) and classes (n,) in 0..25."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for label, letter in enumerate(string.ascii_uppercase):
        for _ in range(each):
            paper = Image.new("L", (64, 64))
            font = ImageFont.load_default(size=float(random.integers(40, 58)))
            ImageDraw.Draw(paper).text(
                (32, 32), letter, fill=255, font=font, anchor="mm", stroke_width=int(random.integers(0, 3))
            )
            turned = paper.rotate(float(random.normal(0, 8)), Image.Resampling.BICUBIC)
            small = np.asarray(turned.resize((8, 8), Image.Resampling.BOX)).astype(np.float32)
            small = (small * random.uniform(1, 1.6) + random.normal(0, 8, small.shape)).clip(0, 255).astype(np.uint8)
            images.append(np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)))
            labels.append(label)
    x = torch.from_numpy(np.stack(images)).float().div(255)[:, None].expand(-1, 3, -1, -1)
    return (x - 0.5) / 0.25, torch.tensor(labels)


def pretrain(net: Backbone, x: torch.Tensor, y: torch.Tensor, epochs: int, batch: int = 64) -> None:
    """Train a backbone and a linear layer to tell the letters apart."""
    torch.manual_seed(0)
    head = nn.Linear(net.channels[-1], int(y.max()) + 1)
    parameters = [*net.parameters(), *head.parameters()]
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = F.cross_entropy(head(net(x[chosen]).feature_maps[-1].mean((2, 3))), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    titles = ("features", "weights", "swapped in the first 5 %", "worst", "right suggestion", "copies found", "s")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for one in rows:
        mean = {key: float(np.mean(value)) for key, value in one.items() if isinstance(value, list)}
        cells = [one["features"], one["weights"], f"{100 * mean['found']:.1f} %", f"{100 * min(one['found']):.1f} %"]
        cells += [f"{100 * mean['suggested']:.1f} %", f"{100 * min(one['copies']):.0f} %", f"{mean['seconds']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
