"""Folders of classification runs as a run leaves them, made without training, and their images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bbframe.data import make_data
from bbframe.data.images.image_options import ImageFolderOptions
from bbframe.files import dump_yaml, visible, write_text
from bbframe.preprocessing import Preprocessing

COLUMNS = ["image", "class", "predicted", "probability", "true_probability", "loss"]


def write_photos(root: Path, class_names: list[str], each: int = 10, name: str = "photo {}.png") -> None:
    """Write random photos of several shapes, `each` in the folder of each class."""
    generator = np.random.default_rng(0)
    for label, folder in enumerate(class_names):
        (root / folder).mkdir(parents=True)
        for i in range(each):
            pixels = generator.integers(0, 256, (40 + 20 * (i % 3), 90, 3), np.uint8)
            pixels[:, :, label % 3] //= 4
            Image.fromarray(pixels).save(root / folder / name.format(i))


def photo_data(root: Path, **options: object):
    """The data module of such photos."""
    chosen = ImageFolderOptions(root=str(root), image_size=(32, 32), num_workers=0, **options)  # type: ignore[arg-type]
    return make_data(chosen, seed=0, preprocessing=Preprocessing(size=(32, 32)), num_channels=3, stride=32)


def run_folder(folder: Path, names: list[str], class_names: list[str], rows: list[tuple], **more: object) -> Path:
    """Write the files of a run; a row is (image, class, predicted class, probability, its class's), classes by place.

    `names` are the images' names; `more` goes into metrics.json, and `config` of it into config.yaml.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"task": {"name": "classification"}, "head": {"name": "linear"}, "seed": 0, **more.pop("config", {})}
    overrides = more.pop("overrides", ["backbone=resnet18", "optim.lr=0.01"])
    write_text(folder / "config.yaml", dump_yaml(config))
    write_text(folder / "overrides.yaml", dump_yaml(overrides))
    write_text(folder / "environment.json", json.dumps({"time": "2026-11-27T12:00:00", "weights": None}))
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for image, label, predicted, probability, true in rows:
            words = map(visible, (names[image], class_names[label], class_names[predicted]))
            table.writerow([*words, probability, true, round(-float(np.log(true)), 6)])
    write_text(
        folder / "metrics.csv", "epoch,step,train/loss,val/loss,val/accuracy\n1,9,1.5,1.2,0.5\n2,18,0.7,0.9,0.75\n"
    )
    right = sum(label == predicted for _, label, predicted, *_ in rows) / len(rows)
    metrics = {
        "status": "ok",
        "name": None,
        "backbone": "resnet18",
        "metric": "accuracy",
        "mode": "max",
        "params": 1e6,
        "val": {"accuracy": 0.75},
        "best_epoch": 2,
        "test": {"accuracy": right, "loss": 0.5},
        "gmacs": 0.1,
        "test_low": {"accuracy": right - 0.1},
        "test_high": {"accuracy": right + 0.1},
        "test_part": "test",
        "class_f1": dict.fromkeys(class_names, 0.5),
        "skipped": 0,
        "assumed": {},
        "seed": 0,
        "tags": ["a tag"],
        "seconds": {"total": 75.2, "fit": 70.0, "test": 5.2},
        "calibration": {"ece": 0.12, "temperature": 1.7},
        **more,
    }
    write_text(folder / "metrics.json", json.dumps(metrics))
    return folder


def answers_to(data) -> tuple[list[str], list[tuple]]:
    """The names of the test images, and an answer to each: two thirds are right."""
    generator = torch.Generator().manual_seed(0)
    part = data.parts["test"]
    rows = []
    for i, label in enumerate(part.labels):
        sure = 0.5 + 0.49 * float(torch.rand(1, generator=generator))
        right = i % 3 != 0
        answer = label if right else (label + 1) % data.num_classes
        rows.append((i, label, answer, round(sure, 6), round(sure if right else (1 - sure) / 2, 6)))
    return [data.source("test", i) for i in range(len(rows))], rows
