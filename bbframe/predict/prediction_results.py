"""The results of a prediction: a picture of each image, and tables of all images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from bbframe.files import visible, write_text
from bbframe.imaging.decode import read_image, reason
from bbframe.predict.image_predictor import ImagePredictor
from bbframe.predict.image_results import ClassResult
from bbframe.predict.input_images import InputImage
from bbframe.report.box_drawing import Detections, draw_detections
from bbframe.report.chart_style import GREY, RED, save_picture
from bbframe.report.coco_results import CocoResult, coco_results
from bbframe.report.tables import write_csv
from bbframe.report.text_drawing import add_caption, enlarge_for_text
from bbframe.run.masking import outward
from bbframe.tasks.detection import to_original
from bbframe.tasks.mask_rle import encode_mask

TABLE_CLASSES, CAPTION_CLASSES = 5, 3  # the most probable classes, in the table and below the picture


@dataclass(frozen=True)
class LoadedImage:
    """An image that could be read, its number from 1, the network's input (C, H, W) and its (x, y) scale."""

    number: int
    input: InputImage
    image: Image.Image
    pixels: Tensor
    scale: tuple[float, float]


class ClassRow(NamedTuple):
    """An image, its classes with their probabilities, the most probable first, and whether it is unfamiliar."""

    name: str
    best: list[tuple[str, float]]
    unfamiliar: bool | None = None


class ClassResults:
    """The results of a classifier: images with captions, and predictions.csv."""

    def __init__(self, network: ImagePredictor):
        self.names = network.class_names

    def draw(self, loaded: LoadedImage, answer: ClassResult) -> tuple[Image.Image, ClassRow]:
        """The picture and the row of one image."""
        best = answer.top(TABLE_CLASSES)
        lines = [f"{name}  {share:.1%}" for name, share in best[:CAPTION_CLASSES]]
        colours = ["black", *[GREY] * (len(lines) - 1)]
        if answer.unfamiliar:
            lines, colours = ["unlike the training images", *lines], [RED, *colours]
        picture = add_caption(enlarge_for_text(loaded.image), lines, colours)
        return picture, ClassRow(loaded.input.name, best, answer.unfamiliar)

    def write(self, out: Path, rows: Sequence[ClassRow]) -> None:
        """Write the table, control characters in names spelled out.

        A name that begins with = + - or @ stays as it is, as in pandas: programs read the table, and need the name.
        """
        table = [["image", "predicted", "probability"]]
        for place in range(2, len(rows[0].best) + 1):
            table[0] += [f"predicted_{place}", f"probability_{place}"]
        told = rows[0].unfamiliar is not None  # whether the network has a threshold
        table[0] += ["unfamiliar"] * told
        for row in rows:
            shares = (cell for word, share in row.best for cell in (visible(word), f"{share:.6f}"))
            table.append([visible(row.name), *shares, *[str(bool(row.unfamiliar)).lower()] * told])
        write_csv(out / "predictions.csv", table)


class BoxRow(NamedTuple):
    """An image as COCO describes it (id, file_name, width, height) and what was found in it."""

    image: dict[str, int | str]
    found: list[CocoResult]


class BoxResults:
    """The results of a detector: images with boxes and masks, predictions.json and images.json."""

    def __init__(self, network: ImagePredictor, threshold: float):
        self.names, self.ids, self.threshold = network.class_names, network.category_ids, threshold

    def draw(self, loaded: LoadedImage, answer: dict[str, Tensor]) -> tuple[Image.Image, BoxRow]:
        """The picture and the row of one image, both in its own pixels, from what `Detection.predict` returns."""
        image, (number, name) = loaded.image, (loaded.number, loaded.input.name)
        target = {"scale": torch.tensor(loaded.scale), "size": torch.tensor([image.height, image.width])}
        answer = {key: value.cpu() for key, value in answer.items()}
        results: list[CocoResult] = []
        drawn: dict[str, list[np.ndarray]] = {key: [] for key in answer}
        for i in range(len(answer["scores"])):  # one by one: a hundred masks of a large image would fill the memory
            one = to_original({key: value[i : i + 1] for key, value in answer.items()}, target)
            masks = [encode_mask(mask) for mask in one["masks"]] if "masks" in one else None
            results += coco_results(number, one["boxes"], one["scores"], one["labels"], masks, self.ids)
            if one["scores"][0] >= self.threshold:
                for key, value in one.items():
                    drawn[key].append(value[0].numpy())
        found = Detections(
            boxes=np.array(drawn["boxes"]).reshape(-1, 4),
            labels=np.array(drawn["labels"], int),
            scores=np.array(drawn["scores"]),
            masks=drawn.get("masks"),
        )
        seen: dict[str, int | str] = {"id": number, "file_name": name, "width": image.width, "height": image.height}
        return draw_detections(image, found, self.names, self.threshold), BoxRow(seen, results)

    def write(self, out: Path, rows: Sequence[BoxRow]) -> None:
        categories = [{"id": i, "name": name} for i, name in zip(self.ids, self.names, strict=True)]
        images = {"images": [row.image for row in rows], "annotations": [], "categories": categories}
        write_text(out / "images.json", json.dumps(images, indent=1) + "\n")
        write_text(out / "predictions.json", json.dumps([found for row in rows for found in row.found]) + "\n")


def write_predictions(
    network: ImagePredictor, inputs: Sequence[InputImage], out: Path, threshold: float, batch_size: int
) -> tuple[int, list[str]]:
    """Write pictures and tables; returns the number of images read, and "path: reason" of each that could not be.

    Raises ValueError for a task whose predictions are neither classes nor boxes.
    """
    results: Any
    if network.task_name == "detection":
        results = BoxResults(network, threshold)
    elif network.task_name == "classification":
        results = ClassResults(network)
    else:
        raise ValueError(f"predict: task={network.task_name} is neither classification nor detection")
    rows: list[ClassRow | BoxRow] = []
    skipped: list[str] = []

    def load(number: int, item: InputImage) -> LoadedImage | str:
        try:
            image = read_image(item.path, network.decoding)
            return LoadedImage(
                number, item, image, network.preprocessing.prepared(image), network.preprocessing.scale(image.size)
            )
        except Exception as error:  # a decoder may raise anything on a broken file
            return reason(error)

    def draw(loaded: LoadedImage, answer: Any) -> ClassRow | BoxRow:
        picture, row = results.draw(loaded, answer)
        loaded.input.picture.parent.mkdir(parents=True, exist_ok=True)
        save_picture(picture, loaded.input.picture)
        return row

    bar = Progress(transient=True, disable=not sys.stdout.isatty())
    try:
        with ThreadPoolExecutor() as pool, bar:
            job = bar.add_task("predicting", total=len(inputs))
            for start in range(0, len(inputs), batch_size):
                batch = inputs[start : start + batch_size]
                read: list[LoadedImage] = []
                for item, loaded in zip(batch, pool.map(load, range(start + 1, len(inputs) + 1), batch), strict=True):
                    if isinstance(loaded, LoadedImage):
                        read.append(loaded)
                    else:
                        skipped.append(f"{item.path}: {loaded}")
                        print(outward(f"skipped {skipped[-1]}"), file=sys.stderr)
                answers = network.answers([loaded.pixels for loaded in read]) if read else []
                rows += pool.map(draw, read, answers)
                bar.advance(job, len(batch))
    finally:  # an interrupted prediction writes the tables of the images that it has seen
        if rows:
            results.write(out, rows)
    return len(rows), skipped
