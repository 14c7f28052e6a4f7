"""How far the advice of `bbframe rank` can be trusted: scores of frozen features against what fine-tuning reaches.

    python -m benchmarks.rank_trust                              # digits, 8 splits; figures in outputs/rank_trust
    python -m benchmarks.rank_trust --task detection --splits 4

Each split takes other five of the ten digit classes. All architectures, in small sizes, are pretrained on these
classes, and what they reach on held-out images of them is the prior: it stands for the accuracy that is published of
a checkpoint. Then come the other five classes with few labelled images: each score sees the frozen features of these
images, and every network is fine-tuned in full on them and tested on all other images of the five classes. With
`--task detection` they come as scenes: the features are means over true boxes, and an FCOS is fine-tuned.

A split that is done lies in the folder as <task>_split<number>.json and is not computed again. Prints tables in
Markdown, and writes the same to summary_<task>.json. Intervals are Student's, 95 %, over the splits (of shares
Clopper and Pearson's).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: a process a split, and a core a process

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbframe.data.boxes.box_options import DigitScenesOptions
from bbframe.data.boxes.digit_scenes import Draw, scene
from bbframe.data.images.digits import scans
from bbframe.extraction.class_scores import correct_rows, one_hot
from bbframe.extraction.nearest_neighbours import knn_scores
from bbframe.extraction.ridge import ridge_class_scores
from bbframe.extraction.standardised_features import StandardisedFeatures
from bbframe.files import atomic
from bbframe.rank.box_scores import box_scores
from bbframe.rank.discriminant import lda_scores
from bbframe.rank.logme import logme
from bbframe.rank.resampling import Resampling
from bbframe.rank.stage_choice import choose_stages
from benchmarks import rank_networks as networks
from benchmarks.rank_summary import summarise, tables

HELD_OUT = 0.3  # of the pretraining classes
SIDES = {"digits": 32, "detection": 64}
PRETRAINING = {"digits": networks.Schedule(7), "detection": networks.Schedule(6)}
STEPS, RATE = 120, 5e-4  # of fine-tuning, for every number of images
SCENES, TEST_SCENES = 48, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the splits that are missing, and print the tables over all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(SIDES), default="digits")
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--shots", type=int, default=20, help="labelled images a class (digits)")
    parser.add_argument("--networks", nargs="+", default=list(networks.NETWORKS), choices=list(networks.NETWORKS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one split each")
    parser.add_argument("--out", type=Path, default=Path("outputs/rank_trust"))
    given = parser.parse_args(arguments)
    if len(given.networks) < 3:
        parser.error("--networks: an order needs three networks or more")
    given.out.mkdir(parents=True, exist_ok=True)
    missing = [split for split in range(given.splits) if not split_file(given, split).is_file()]
    begun = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for split in pool.imap_unordered(run_split, [(given, split) for split in missing]):
            print(f"split {split} done, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    splits = [json.loads(split_file(given, split).read_text()) for split in range(given.splits)]
    summary = {"task": given.task, "splits": given.splits, **summarise(splits)}
    with atomic(given.out / f"summary_{given.task}.json") as path:
        path.write_text(json.dumps(summary, indent=1))
    print(tables(summary))
    return 0


def split_file(given: argparse.Namespace, split: int) -> Path:
    """Where the figures of a split lie."""
    return given.out / f"{given.task}_split{split}.json"


def run_split(asked: tuple[argparse.Namespace, int]) -> int:
    """Pretrain, score and fine-tune all networks of one split, and write what they reach."""
    given, split = asked
    torch.set_num_threads(1)
    classes = split_classes(split)
    labels = np.array(scans()[1])
    source, target = (np.flatnonzero(np.isin(labels, part)) for part in (classes[:5], classes[5:]))
    random = np.random.default_rng(split)
    random.shuffle(source)
    held = int(HELD_OUT * len(source))
    side = SIDES[given.task]
    trial = digits_trial if given.task == "digits" else detection_trial
    data = {
        "pretraining": labelled_images(source[held:], classes[:5], side),
        "held_out": labelled_images(source[:held], classes[:5], side),
    }
    found: dict[str, Any] = {}
    for name in given.networks:
        begun = time.monotonic()
        net = networks.network(name, side, split)
        last = [len(net.channels) - 1]
        read = networks.train_classifier(net, last, *data["pretraining"], 5, PRETRAINING[given.task], split)
        found[name] = {
            "params": networks.parameters(net),
            "prior": networks.accuracy(net, read, last, *data["held_out"]),
            **trial(net, target, classes[5:], given, split),
            "seconds": time.monotonic() - begun,
        }
        print(split, name, json.dumps(found[name]), file=sys.stderr, flush=True)
    with atomic(split_file(given, split)) as path:
        path.write_text(json.dumps({"split": split, "classes": classes, "networks": found}, indent=1))
    return split


def split_classes(split: int) -> list[int]:
    """The ten digits in the order of a split, the first five to pretrain on; no two splits have the same five."""
    random, seen = np.random.default_rng(0), set()
    while True:
        order = random.permutation(10).tolist()
        if frozenset(order[:5]) in seen:
            continue
        seen.add(frozenset(order[:5]))
        if len(seen) > split:
            return order


def labelled_images(rows: np.ndarray, classes: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
    """Scans as images (n, 3, side, side) in -1..1, and their places among the classes."""
    pixels, labels = scans()
    images = [Image.fromarray(pixels[row]).resize((side, side), Image.Resampling.BICUBIC) for row in rows]
    return tensor(images), torch.tensor([classes.index(labels[row]) for row in rows])


def tensor(images: Sequence[Any]) -> Tensor:
    """Grey images (H, W) of 0..255 -> (n, 3, H, W) in -1..1."""
    grey = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 127.5 - 1
    return grey[:, None].expand(-1, 3, -1, -1).contiguous()


def class_scores(features: Sequence[np.ndarray], y: np.ndarray, K: int) -> list[dict[str, float]]:
    """The scores of each stage."""
    found = []
    for X in map(StandardisedFeatures, features):
        rows = {"knn": knn_scores(X, y, K), "ridge": ridge_class_scores(X, y, K), "lda": lda_scores(X, y, K)}
        scores = {name: float(correct_rows(values, y).mean()) for name, values in rows.items()}
        found.append({**scores, "logme": logme(X, one_hot(y, K)).value})
    return found


def digits_trial(
    net: Any, target: np.ndarray, classes: Sequence[int], given: argparse.Namespace, split: int
) -> dict[str, Any]:
    """Scores of a pretrained network on few images of new classes, and what it reaches there with three heads."""
    labels, random = np.array(scans()[1]), np.random.default_rng(1000 + split)
    few = np.concatenate([random.permutation(target[labels[target] == k])[: given.shots] for k in classes])
    images, y = labelled_images(few, classes, SIDES["digits"])
    test = labelled_images(np.setdiff1d(target, few), classes, SIDES["digits"])
    features = networks.stage_features(net, images)
    names = [f"{place}" for place in range(len(features))]
    choices = {
        head: choose_stages(
            [(name, "mean") for name in names],
            lambda stage, kind: features[int(stage)],
            y.numpy(),
            len(classes),
            Resampling(np.arange(len(y))),
            first=first,
        )
        for head, first in {"greedy": None, "last, then greedy": names[-1]}.items()
    }
    heads = {"last": [len(names) - 1], "all": list(range(len(names)))}
    heads |= {head: [int(stage) for stage in choice.stages] for head, choice in choices.items()}
    schedule = networks.Schedule(STEPS // max(1, len(y) // networks.BATCH), rate=RATE)
    reached: dict[str, float] = {}
    for head, stages in heads.items():
        same = next((other for other in reached if heads[other] == stages), None)
        if same is None:
            tuned = networks.fresh(net)
            read = networks.train_classifier(tuned, stages, images, y, len(classes), schedule, split)
            reached[head] = networks.accuracy(tuned, read, stages, *test)
        else:
            reached[head] = reached[same]
    return {
        "stages": class_scores(features, y.numpy(), len(classes)),
        "chosen": {head: heads[head] for head in choices},
        "chosen_scores": {head: float(choice.correct.mean()) for head, choice in choices.items()},
        "reached": reached,
    }


def detection_trial(
    net: Any, target: np.ndarray, classes: Sequence[int], given: argparse.Namespace, split: int
) -> dict[str, Any]:
    """Scores of a pretrained network on true boxes in few scenes of new classes, and the mAP50 of an FCOS there."""
    target = np.random.default_rng(1000 + split).permutation(target)
    half = len(target) // 2
    images, targets = made_scenes(target[:half], classes, SCENES, f"few {split}")
    test = made_scenes(target[half:], classes, TEST_SCENES, f"test {split}")
    boxes, y = [each["boxes"] for each in targets], torch.cat([each["labels"] for each in targets]).numpy()
    features = networks.box_features(net, images, boxes)
    stages, corners = class_scores(features, y, len(classes)), torch.cat(boxes).numpy()
    for scores, X in zip(stages, features, strict=True):
        scores["box_r2"] = box_scores(X, corners).r2
    schedule = networks.Schedule(60, batch=8)
    detector = networks.train_detector(net, images, targets, len(classes), schedule, split)
    return {"stages": stages, "reached": {"fcos": networks.mean_precision(net, detector, *test)}}


def made_scenes(
    pool: np.ndarray, classes: Sequence[int], count: int, seed: str
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Scenes (n, 3, 64, 64) of some scans, each with a digit or more, and their boxes and labels."""
    side, labels = SIDES["detection"], scans()[1]
    options = DigitScenesOptions(image_size=(side, side), num_digits=(1, 3), digit_size=(16, 32))
    images, targets, number = [], [], 0
    while len(images) < count:
        pixels, found = scene(Draw("rank trust", seed, number), pool.tolist(), options)
        number += 1
        if found:
            images.append(pixels)
            boxes = torch.tensor([row[:4] for row in found], dtype=torch.float32)
            targets.append({"boxes": boxes, "labels": torch.tensor([classes.index(labels[row[4]]) for row in found])})
    return tensor(images), targets


if __name__ == "__main__":
    raise SystemExit(main())
