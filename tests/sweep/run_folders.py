"""Run folders as a run leaves them, made without training."""

from __future__ import annotations

import csv
import json

import yaml

GMACS = {"resnet": 0.5, "convnextv2": 0.75}


def summary(backbone="resnet", accuracy=0.9, seed=1, overrides=None, metric="accuracy", mode="max", **more):
    """The content of a metrics.json; the validation is 0.01 above the test."""
    return {
        "status": "ok",
        "name": None,
        "task": "classification",
        "data": "digits",
        "head": "linear",
        "backbone": backbone,
        "source": "transformers",
        "params": 11_200_000,
        "gmacs": GMACS.get(backbone, 4.0),
        "image_size": [32, 32],
        "maps": {"stage4": 32},
        "epochs": 3,
        "metric": metric,
        "mode": mode,
        "val": {metric: accuracy + 0.01},
        "best_epoch": 2,
        "test": {metric: accuracy, "f1": accuracy / 2},
        "test_low": {metric: accuracy - 0.02},
        "test_high": {metric: accuracy + 0.03},
        "test_part": "test",
        "test_images": 10,
        "test_sha256": "of the digits",
        "seconds": {"fit": 10.0, "test": 0.5, "total": 11.0 + seed},
        "peak_memory_bytes": 2**30,
        "seed": seed,
        "overrides": overrides or [f"backbone={backbone}", "trainer.max_epochs=3", f"seed={seed}"],
        **more,
    }


def run_folder(parent, name, content=None, overrides=None, config=None, right=None):
    """A run folder with metrics.json (a dict), error.txt (a text) or neither.

    `right` says for each test image whether predictions.csv has it right, in its order.
    """
    folder = parent / str(name)
    folder.mkdir(parents=True)
    if isinstance(content, dict):
        (folder / "metrics.json").write_text(json.dumps(content))
        overrides = overrides or content["overrides"]
    elif content is not None:
        (folder / "error.txt").write_text(content)
    if overrides is not None:
        (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if right is not None:
        write_predictions(folder, right)
    return folder


def write_predictions(folder, right, names=None):
    """predictions.csv: image i is of class "a", and right or taken for "b"; a wrong one has loss 2 + i / 100."""
    names = names or [f"image {i}" for i in range(len(right))]
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "predicted", "probability", "true_probability", "loss"])
        for i, good in enumerate(right):
            own = 0.9 if good else 0.1
            writer.writerow([names[i], "a", "a" if good else "b", 0.9, own, 0.1 if good else 2 + i / 100])
