"""The sections of a classification run: confusion matrix, classes, tested images, calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bbframe.data.data_module import ImageDataModule
from bbframe.files import visible
from bbframe.imaging.image_fit import normalise
from bbframe.report.page.finished_run import FinishedRun, ScoredImage, read_predictions, read_table
from bbframe.report.page.gradcam import heat_maps
from bbframe.report.page.html_page import Section
from bbframe.report.page.run_sections import class_counts, decimal
from bbframe.report.page.thumbnails import read_thumbnails
from bbframe.tasks.calibration import reliability
from bbframe.tasks.classification import Classification

MOST_IMAGES = 800  # in a page
MOST_PHOTO_BYTES = 5_000_000  # of all photos in a page
MOST_CLASSES = 1500  # in the table of classes
EXPLAINED = 24  # of the worst images
GONE = "no longer among the images of the data set"
BATCH_PIXELS = 400_000  # of images that are explained together


def classification_sections(
    run: FinishedRun, data: ImageDataModule | None, task: Classification | None, missing: str
) -> list[Section]:
    """The sections about the tested images, none without a test.

    Without `data` the images are named and not shown, and `missing` says why; without `task` none is explained.
    """
    names = class_names(run, data)
    rows = read_predictions(run.folder / "predictions.csv", names)
    if not rows:
        return []
    chosen = chosen_images(rows, MOST_IMAGES)
    return [
        confusion_section(names, rows),
        image_section(run, names, rows, chosen, data, task, missing),
        class_section(run, names, rows, data),
        *calibration_sections(run, rows),
    ]


def class_names(run: FinishedRun, data: ImageDataModule | None) -> list[str]:
    """The classes in their order, as predictions.csv writes them."""
    scores = run.metrics.get("class_f1")
    if isinstance(scores, dict) and scores:
        return [visible(name) for name in scores]
    if data is not None:
        return [visible(name) for name in data.class_names]
    rows = read_table(run.folder / "predictions.csv")
    return sorted({row[column] for row in rows for column in ("class", "predicted")})


def chosen_images(rows: Sequence[ScoredImage], most: int) -> list[int]:
    """Which images a page shows, the worst first: all wrong ones, then right ones spread evenly over the loss."""
    order = sorted(range(len(rows)), key=lambda i: -rows[i].loss)
    wrong = [i for i in order if rows[i].label != rows[i].predicted][:most]
    right = [i for i in order if rows[i].label == rows[i].predicted]
    room = min(most - len(wrong), len(right))
    spread = [right[round(place)] for place in np.linspace(0, len(right) - 1, room)] if room else []
    return wrong + spread


def confusion_section(names: list[str], rows: Sequence[ScoredImage]) -> Section:
    """How often each true class was predicted as each class."""
    counts = Counter((row.label, row.predicted) for row in rows)
    cells = [[label, predicted, count] for (label, predicted), count in sorted(counts.items())]
    note = "A row is a true class, a column a predicted one. A cell shows its images below."
    return Section("Confusion", "confusion", {"classes": names, "cells": cells}, note)


def image_section(
    run: FinishedRun,
    names: list[str],
    rows: Sequence[ScoredImage],
    chosen: Sequence[int],
    data: ImageDataModule | None,
    task: Classification | None,
    missing: str,
) -> Section:
    """The photos of the `chosen` rows, what the network said, and where it looked."""
    part = str(run.metrics.get("test_part", "test"))
    places = {} if data is None else {visible(data.source(part, i)): i for i in range(data.counts.get(part, 0))}
    found = [i for i in chosen if rows[i].name in places]
    photos: list[Any] = []
    if data is not None:
        indices = [places[rows[i].name] for i in found]
        photos = read_thumbnails(data.parts[part].read, indices, MOST_PHOTO_BYTES)
    by_row: dict[int, Any] = dict(zip(found, photos, strict=False))
    if data is not None:
        by_row.update((i, GONE) for i in chosen if rows[i].name not in places)
    seen = [i for i in chosen if data is None or i in by_row]  # the others had no room
    images = []
    for i in seen:
        row, photo = rows[i], by_row.get(i)
        facts = [row.label, row.predicted, *(round(x, 5) for x in (row.probability, row.true_probability, row.loss))]
        seen_now = {"photo": photo[0], "size": photo[1]} if isinstance(photo, tuple) else {"photo": None, "why": photo}
        images.append({"name": row.name, "facts": facts, **seen_now})
    worst = sorted((i for i in seen if isinstance(by_row.get(i), tuple)), key=lambda i: -rows[i].loss)[:EXPLAINED]
    stage = ""
    if data is not None and task is not None and worst:
        stage, heats = heat_of_images(task, data, part, [(places[rows[i].name], by_row[i][1]) for i in worst])
        for i, heat in zip(worst, heats, strict=False):
            images[seen.index(i)]["heat"] = heat
    content = {"classes": names, "images": images, "total": len(rows), "stage": stage}
    return Section("Images", "gallery", content, image_note(rows, seen, missing, stage))


def image_note(rows: Sequence[ScoredImage], seen: Sequence[int], missing: str, stage: str) -> str:
    """How many images are shown, of how many, and what is missing."""
    wrong = sum(row.label != row.predicted for row in rows)
    there = sum(rows[i].label != rows[i].predicted for i in seen)
    of_those = "all of them" if there == wrong else f"{there:,} of them"
    note = f"{len(seen):,} of {len(rows):,} tested images are in this page; {wrong:,} were wrong, {of_those} are here."
    if stage:
        note += f" The {EXPLAINED} with the highest loss show where the network looked (Grad-CAM on {stage})."
    return f"{note} {missing}".strip()


def heat_of_images(
    task: Classification, data: ImageDataModule, part: str, images: Sequence[tuple[int, tuple[int, int]]]
) -> tuple[str, list[dict[str, Any]]]:
    """The stage that was looked at, "" when none can be, and for each (index, (width, height)) its heat."""
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    heats: list[dict[str, Any]] = []
    stage = ""
    together = max(1, BATCH_PIXELS // (data.image_size[0] * data.image_size[1]))
    for start in range(0, len(images), together):
        batch = images[start : start + together]
        pixels = torch.stack([normalise(data.picture(part, index), mean, std) for index, _ in batch])
        maps = heat_maps(task, pixels)
        if maps is None:
            return "", []
        stage = maps.stage
        for values, (_, size) in zip(maps.values, batch, strict=True):
            cells = [(255 * row).round().int().tolist() for row in values]
            heats.append({"cells": cells, "box": [round(side, 4) for side in data.seen(size)]})
    return stage, heats


def class_section(
    run: FinishedRun, names: list[str], rows: Sequence[ScoredImage], data: ImageDataModule | None
) -> Section:
    """A row for each class: its images in every part, its scores, and what it is most often taken for."""
    scores = [*(run.metrics.get("class_f1") or {}).values()]
    counts = class_counts(data)
    labels, predicted = (Counter(getattr(row, column) for row in rows) for column in ("label", "predicted"))
    right = Counter(row.label for row in rows if row.label == row.predicted)
    taken: dict[int, Counter[int]] = {}
    for row in rows:
        if row.label != row.predicted:
            taken.setdefault(row.label, Counter())[row.predicted] += 1
    parts = [part for part in ("train", "val", "test") if part in counts]
    table = []
    for label, name in enumerate(names):
        most = taken.get(label, Counter()).most_common(1)
        confused = {"text": f"{names[most[0][0]]} ({most[0][1]})", "sort": most[0][1]} if most else None
        measured = [
            scores[label] if label < len(scores) else None,
            right[label] / labels[label] if labels[label] else None,
            right[label] / predicted[label] if predicted[label] else None,
        ]
        cells = [None if value is None else {"text": decimal(value), "sort": value} for value in measured]
        table.append([name, *(counts[part][label] for part in parts), labels[label], *cells, confused])
    order = sorted(range(len(names)), key=lambda label: (measure(scores, label), label))
    note = "The weakest classes first."
    if len(names) > MOST_CLASSES:
        note = f"The {MOST_CLASSES:,} weakest of {len(names):,} classes, the weakest first."
    counted = [*(f"{part} images" for part in parts), "tested"]
    numbers = [{"title": title, "number": True} for title in (*counted, "F1", "recall", "precision")]
    columns = [{"title": "class"}, *numbers, {"title": "most often taken for"}]
    content = {"columns": columns, "rows": [table[label] for label in order[:MOST_CLASSES]], "filter": len(names) > 12}
    return Section("Classes", "table", content, note)


def measure(scores: Sequence[Any], label: int) -> float:
    """The score of a class, 0 when there is none."""
    return float(scores[label] or 0) if label < len(scores) else 0.0


def calibration_sections(run: FinishedRun, rows: Sequence[ScoredImage]) -> list[Section]:
    """Whether the probabilities say how often the network is right."""
    confidences = np.array([row.probability for row in rows])
    right = np.array([row.label == row.predicted for row in rows])
    counts, confidence, accuracy = reliability(confidences, right).T
    full = counts > 0
    points = np.stack([confidence, accuracy], axis=1)[full].round(4).tolist()
    labels = [f"{count:.0f} images" for count in counts[full]]
    edges = [f"{place / len(counts):.2f}" for place in range(len(counts) + 1)]
    bins = [f"{low} to {high}" for low, high in pairwise(edges)]
    share = {"min": 0, "max": 1}
    perfect = {"name": "perfect", "points": [[0, 0], [1, 1]], "line": True, "dashed": True, "colour": "--soft"}
    charts = [
        {
            "title": "Reliability",
            "kind": "scatter",
            "x": {"title": "probability of the predicted class", **share},
            "y": {"title": "share of images that are right", **share},
            "series": [{"name": "as trained", "points": points, "labels": labels}, perfect],
        },
        {
            "title": "How sure it was",
            "kind": "bar",
            "x": {"title": "probability of the predicted class", "names": bins},
            "y": {"title": "images", "whole": True},
            "series": [
                {"name": "images", "points": [[name, n] for name, n in zip(bins, counts.tolist(), strict=True)]}
            ],
        },
    ]
    found = run.metrics.get("calibration") or {}
    figures = [
        {"label": label, "value": f"{found[key]:.4f}", "detail": detail}
        for key, label, detail in MEASURES
        if isinstance(found.get(key), (int, float))
    ]
    note = "A well calibrated network is right in 9 of 10 images to which it gives a probability of 0.9."
    if not figures:
        return [Section("Calibration", "chart", {"charts": charts}, note)]
    return [
        Section("Calibration", "figures", {"figures": figures}, note),
        Section("", "chart", {"charts": charts}),
    ]


MEASURES = (
    ("ece", "calibration error", "expected, 15 bins"),
    ("ece_scaled", "with temperature", "the error that is left"),
    ("temperature", "temperature", "fitted on validation images"),
    ("unfamiliar", "unlike the training", "share of test images; 0.05 of validation images"),
)
