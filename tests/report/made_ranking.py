"""A ranking that nobody measured, as rank.json and embedding_map.json hold one, for the tests of tables and pages."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

# name, parameters (M), GMACs, ms, the prior, stages with their strides, whether there is a class token, quality
NETWORKS = [
    ("convnextv2_nano", 15.0, 2.5, 31.0, 81.9, (4, 8, 16, 32), False, 0.965),
    ("dinov2_small", 22.1, 5.5, 60.0, 81.1, (14,) * 12, True, 0.963),
    ("swinv2_tiny", 27.6, 5.9, 77.0, 82.8, (4, 8, 16, 32), False, 0.960),
    ("focalnet_tiny", 27.7, 4.4, 53.0, 82.1, (4, 8, 16, 32), False, 0.957),
    ("convnext_tiny", 27.8, 4.5, 46.0, 82.1, (4, 8, 16, 32), False, 0.955),
    ("swin_tiny", 27.5, 4.4, 43.0, 81.4, (4, 8, 16, 32), False, 0.951),
    ("beit_base", 85.8, 17.6, 130.0, 85.0, (16,) * 12, True, 0.942),
    ("nat_mini", 19.5, 2.7, 44.0, 81.8, (4, 8, 16, 32), False, 0.938),
    ("dinat_mini", 19.5, 2.7, 49.0, 81.8, (4, 8, 16, 32), False, 0.936),
    ("bit_50", 23.5, 4.3, 42.0, 77.0, (4, 8, 16, 32), False, 0.921),
    ("resnet_50", 23.5, 4.1, 28.0, 80.4, (4, 8, 16, 32), False, 0.915),
    ("resnet_18", 11.2, 1.8, 12.0, 71.5, (4, 8, 16, 32), False, 0.904),
    ("vitdet_base", 85.7, 17.6, 131.0, None, (16,) * 12, False, 0.850),
]
CLASSES = ["ant", "bee", "butterfly", "dragonfly", "grasshopper", "ladybird", "mosquito", "moth", "spider", "wasp"]
SCORES = {
    "ridge": "leave-one-out ridge accuracy",
    "knn": "leave-one-out kNN accuracy",
    "lda": "cross-validated shrinkage LDA accuracy",
    "logme": "LogME, log evidence a sample",
}
BOX_SCORES = {
    "box_r2": "leave-one-out R² of the boxes' sizes and offsets",
    "box_r2_small": "the same for boxes below 32² pixels",
    "box_r2_medium": "the same for boxes of 32² to 96² pixels",
    "box_r2_large": "the same for boxes above 96² pixels",
}


def made_ranking(
    count: int = 13,
    *,
    race: bool = True,
    untrained: tuple[str, ...] = (),
    detection: bool = False,
    prior: bool = True,
    failed: bool = True,
) -> dict[str, Any]:
    """A ranking of the first `count` networks; those that are named `untrained` are."""
    rng = np.random.default_rng(0)
    scores = {**SCORES, **(BOX_SCORES if detection else {})}
    backbones = [made_backbone(rng, place, scores, untrained, prior) for place in range(count)]
    if race:
        for one, rung in zip(backbones, (3, 2, 2, 1, 1, 1), strict=False):
            one["finalist"] = "both" if rung == 3 else "probe" if rung == 2 else "prior"
            test = one["score"] + 0.012
            one["race"] = {"rung": rung, "epochs": (2, 6, 18)[rung - 1], "val": test + 0.004, "test": test}
            one["race"] |= {"test_low": test - 0.01, "test_high": test + 0.009, "seconds": 21.0 * rung}
            one["race"] |= {"folder": f"race/rung{rung}/0_{one['name']}"}
    names = [one["name"] for one in backbones]
    rungs = [
        {"folder": "race/rung1", "epochs": 2, "entrants": names[:6], "kept": names[:3]},
        {"folder": "race/rung2", "epochs": 6, "entrants": names[:3], "kept": names[:1]},
        {"folder": "race/rung3", "epochs": 18, "entrants": names[:1], "kept": names[:1]},
    ]
    raced = {"rungs": rungs, "winner": names[0], "metric": "accuracy", "mode": "max", "notes": ["the budget ended it"]}
    reason = "no weights: facebook/x cannot be reached; HF_HUB_OFFLINE=0 and a network, or pretrained=false"
    return {
        "status": "ok",
        "task": "detection" if detection else "classification",
        "data": "coco" if detection else "image_folder",
        "class_names": CLASSES,
        "part": "train",
        "images": 1000,
        "rows": 4210 if detection else 1000,
        "seed": 0,
        "score": "ridge",
        "untrained": bool(untrained),
        "scores": scores,
        "backbones": backbones,
        "failed": [{"name": "maskformer_swin_tiny", "reason": reason}] if failed else [],
        "race": raced if race else None,
        "command": f"python train.py backbone={names[0]} 'backbone.out_indices=[2,4]' data=image_folder",
        "notes": [
            "On the digits, the winner was among the finalists in 7 of 8 splits.",
            "Two images were unreadable.",
        ],
        "budget_seconds": 900,
        "seconds": 312.0,
        "folder": "outputs/rank/2026-11-27",
    }


def made_backbone(
    rng: np.random.Generator, place: int, scores: dict[str, str], untrained: tuple[str, ...], prior: bool
) -> dict[str, Any]:
    name, params, gmacs, latency, top1, strides, token, quality = NETWORKS[place]
    stages = []
    for kind in ("mean", "class_token") if token else ("mean",):
        for index, stride in enumerate(strides, start=1):
            depth = index / len(strides)
            base = quality - 0.45 * (0.92 - depth) ** 2 - 0.015 * (kind == "class_token") * (1.2 - depth)
            values = {key: round(base - 0.02 * i + rng.normal(0, 0.004), 4) for i, key in enumerate(scores)}
            values["logme"] = round(1.5 * base - 0.3, 4)
            bounded = {key: value for key, value in values.items() if key != "logme"}
            stage = {"name": f"stage{index}", "index": index, "stride": stride, "channels": 48 * 2 ** min(index, 5)}
            stage |= {"kind": kind, "scores": values, "low": {key: value - 0.012 for key, value in bounded.items()}}
            stages.append({**stage, "high": {key: value + 0.011 for key, value in bounded.items()}})
    last, before = len(strides), len(strides) // 2
    step = {"stage": f"stage{last}", "kind": "mean", "score": quality - 0.02, "gain": None, "gain_low": None}
    joined = {"stage": f"stage{before}", "kind": "mean", "score": quality, "gain": 0.02, "gain_low": 0.01}
    difference = quality - NETWORKS[0][-1]
    return {
        "name": name,
        "weights": f"somebody/{name}",
        "untrained": name in untrained,
        "params": int(params * 1e6),
        "gmacs": gmacs,
        "image_size": [224, 224],
        "latency_seconds": latency / 1e3,
        "seconds": latency * 1.1,
        "stages": stages,
        "chosen": {
            "stages": [f"stage{before}", f"stage{last}"],
            "indices": [before, last],
            "steps": [{**step, "gain_high": None}, {**joined, "gain_high": 0.03}],
        },
        "score": quality,
        "low": quality - 0.011,
        "high": quality + 0.010,
        "probability_best": (0.52, 0.31, 0.12, 0.04, 0.01)[place] if place < 5 else 0.0,
        "verdict": "first" if place == 0 else "tied" if place < 4 else "behind",
        "difference": difference if place else None,
        "difference_low": difference - 0.008 if place else None,
        "difference_high": difference + 0.009 if place else None,
        "prior": {"top1": top1, "name": f"{name}.in1k"} if prior and top1 else None,
        "finalist": None,
        "race": None,
    }


def made_map(count: int = 800, classes: int = 10, *, umap: bool = True, side: int = 32) -> dict[str, Any]:
    """A map of `count` points in as many clouds as there are classes, with photos of one colour each."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(0, 4, (classes, 2))
    points = centres[labels] + rng.normal(0, 1, (count, 2))
    colours = rng.integers(60, 255, (classes, 3))
    found: dict[str, Any] = {
        "backbone": "convnextv2_nano",
        "stage": "stage4",
        "method": "PCA",
        "explained": [0.31, 0.12],
    }
    found |= {"points": points.round(4).tolist(), "labels": labels.tolist()}
    found["names"] = [f"scans/{CLASSES[label % 10]}/photo {i}.jpg" for i, label in enumerate(labels)]
    found["thumbnails"] = [photo(tuple(map(int, colours[label])), side + i % 7) for i, label in enumerate(labels)]
    if umap:
        found |= {"method": "PCA, UMAP", "umap": (points * 2 + rng.normal(0, 0.2, (count, 2))).round(4).tolist()}
    return found


def photo(colour: tuple[int, ...], side: int) -> str:
    packed = io.BytesIO()
    Image.new("RGB", (side, side * 3 // 4), colour).save(packed, "PNG")
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"
