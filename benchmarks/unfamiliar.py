"""Does a trained classifier say which images are unlike those of its training? Five digits known, five unknown.

    python -m benchmarks.unfamiliar [--seeds 3] [--epochs 10] [--backbones resnet18 convnextv2_atto] [--json FILE]

Each network is trained on the digits 0 to 4 as on any folder of images. Then it is shown test images of these digits,
the digits 5 to 9, and pieces of two photographs that come with scikit-learn, as small as the scans. The table says
which share of each `ClassResult.unfamiliar` calls unlike the training images, and how well three scores part known
test images from the others (area under the ROC curve): the distance that bbframe uses, the probability of the best
class, and the energy of the scores (arXiv:2010.03759). Means over the seeds, the worst seed in brackets.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import bbframe
from bbframe.app import train
from bbframe.data.images.digits import scans

KNOWN, PIECES = 5, 300


def write_known(folder: Path) -> None:
    """The scans of the known digits as a folder of images, one folder a class."""
    for index, (pixels, label) in enumerate(zip(*scans(), strict=True)):
        if label < KNOWN:
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / str(label) / f"{index:04}.png")


def photographs() -> list[Image.Image]:
    """Pieces of two photographs, grey and as small as the scans."""
    from sklearn.datasets import load_sample_image

    generator = np.random.default_rng(0)
    whole = [Image.fromarray(load_sample_image(name)).convert("L") for name in ("china.jpg", "flower.jpg")]
    pieces = []
    for number in range(PIECES):
        picture = whole[number % 2]
        side = int(generator.integers(16, 120))
        left, top = (int(generator.integers(0, length - side)) for length in picture.size)
        pieces.append(picture.crop((left, top, left + side, top + side)).resize((8, 8), Image.Resampling.BICUBIC))
    return pieces


def scores(net: Any, images: list[Any]) -> dict[str, np.ndarray]:
    """The three scores of images, each higher the less familiar an image is."""
    results = net(images, batch_size=64)
    with torch.inference_mode():
        raw = torch.cat(
            [net.task.scores(list(net.preprocessing(images[i : i + 64]))) for i in range(0, len(images), 64)]
        )
    return {
        "distance": np.array([result.distance for result in results]),
        "probability": -raw.softmax(1).amax(1).double().numpy(),
        "energy": -raw.logsumexp(1).double().numpy(),
    }


def measure(backbone: str, seed: int, epochs: int, place: Path) -> dict[str, Any]:
    """Train one network and show it all images."""
    from sklearn.metrics import roc_auc_score

    run = place / f"{backbone}_{seed}"
    words = ["data=image_folder", f"data.root={place / 'known'}", "data.image_size=32", "data.num_workers=0"]
    words += [f"backbone={backbone}", f"seed={seed}", f"trainer.max_epochs={epochs}", f"hydra.run.dir={run}"]
    if train.main(words):
        raise SystemExit(f"{backbone}, seed {seed}: the run failed, see {run}")
    net = bbframe.load(run)
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        tested: list[Any] = [row["image"] for row in csv.DictReader(file)]
    pixels, labels = scans()
    others: list[Any] = [Image.fromarray(x) for x, label in zip(pixels, labels, strict=True) if label >= KNOWN]
    known = scores(net, tested)
    found: dict[str, Any] = {"backbone": backbone, "seed": seed, "known": float((known["distance"] > 1).mean())}
    for name, images in (("digits", others), ("photographs", photographs())):
        far = scores(net, images)
        found[name] = float((far["distance"] > 1).mean())
        truth = np.repeat([0, 1], [len(tested), len(images)])
        for score in known:
            found[f"{name}/{score}"] = float(roc_auc_score(truth, np.concatenate([known[score], far[score]])))
    metrics = json.loads((run / "metrics.json").read_text())
    return {**found, "accuracy": metrics["test"]["accuracy"], **metrics["calibration"]}


def table(rows: list[dict[str, Any]]) -> str:
    """The results in Markdown, one line a backbone."""
    shares, areas = ("known", "digits", "photographs"), ("distance", "probability", "energy")
    heads = ["backbone", "accuracy", *(f"called unlike: {name}" for name in shares)]
    heads += [f"{name}, area by {score}" for name in shares[1:] for score in areas] + ["ECE", "with temperature"]
    lines = [heads, ["---"] * len(heads)]
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        mine = [row for row in rows if row["backbone"] == backbone]

        def cell(key: str, worst: Any = None, mine: list[dict[str, Any]] = mine) -> str:
            values = [row[key] for row in mine if row.get(key) is not None]
            if not values:
                return ""
            return f"{np.mean(values):.3f}" + (f" ({worst(values):.3f})" if worst else "")

        cells = [backbone, cell("accuracy"), cell("known", max), cell("digits", min), cell("photographs", min)]
        cells += [cell(f"{name}/{score}", min) for name in shares[1:] for score in areas]
        lines.append([*cells, cell("ece"), cell("ece_scaled")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "convnextv2_atto"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_known(place / "known")
        for backbone in given.backbones:
            for seed in range(1, given.seeds + 1):
                rows.append(measure(backbone, seed, given.epochs, place))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
