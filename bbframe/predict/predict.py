"""Prediction: a trained network's answers for images that nobody has labelled, as pictures and as a table.

Classification writes predictions.csv. Detection writes predictions.json, a list in the format of COCO's results, with
all boxes that the detector lets through, and images.json, which says in COCO's own layout what the ids of images and
categories stand for: `COCO("images.json").loadRes("predictions.json")`. Pictures keep the names of the images, below
`out`. What is heavy is imported once the images have been found.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from bbframe.data.decode import read_image, reason
from bbframe.files import write_text
from bbframe.predict.predict_files import Input, check_out, find_checkpoint, find_images, folder_of_results
from bbframe.preprocessing import Preprocessing
from bbframe.schema import parse

TOP = 5  # classes that the table names for each image
CAPTION = 3  # and that its picture names
LISTED = 20  # skipped images that the last lines name


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """`run` is a run folder or a checkpoint, `images` are files and folders, `out` (null: <run folder>/predictions)
    takes the results.

    Boxes with a score of `threshold` or more are drawn. `overwrite` allows results of an earlier prediction to be
    replaced.
    """

    run: str
    images: tuple[str, ...]
    out: str | None = None
    threshold: float = 0.5
    batch_size: int = 8
    device: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("predict: images must name files or folders")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"predict: threshold={self.threshold} must be within 0..1")
        if self.batch_size < 1:
            raise ValueError(f"predict: batch_size={self.batch_size} must be 1 or more")
        if self.device in ("gpu", "cuda") and not torch.cuda.is_available():
            finds = f"torch {torch.__version__} finds none here"
            raise ValueError(f"predict: device={self.device}, but {finds}; use device=auto")


def read_arguments(arguments: Sequence[str]) -> PredictOptions:
    """The options from a command line of key=value; words behind `images=` are more images, as a shell expands them.

    Raises ValueError for anything else.
    """
    given: dict[str, Any] = {}
    last = ""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if last == "images" and (not equals or os.path.exists(argument)):
            given["images"].append(argument)
        elif not equals or argument.startswith("-"):
            raise ValueError(f"{argument!r} is no option; write key=value; bbframe predict --help shows what there is")
        elif key == "images":
            given.setdefault("images", []).extend(_paths(value))
            last = key
        else:
            given[key] = _typed(key, value)
            last = key
    return parse(PredictOptions, given, "predict")


def _paths(text: str) -> list[str]:
    """One path, or several as a,b or [a,b]."""
    if os.path.exists(text):
        return [text]
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") and not glob.glob(text) else text
    return [path for path in (part.strip() for part in inner.split(",")) if path]


def _typed(key: str, text: str) -> Any:
    if key in ("run", "out", "device"):
        return text
    if text.lower() in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# the network


@dataclass(frozen=True)
class Network:
    """A trained network in evaluation mode, and `prepare`, which turns an image into its input and says the scale.

    `category_ids` are what its data set calls the classes; without such, their indices.
    """

    task: Any
    prepare: Callable[[Image.Image], tuple[Tensor, tuple[float, float]]]
    class_names: Sequence[str]
    category_ids: Sequence[int]
    device: torch.device

    @property
    def detects(self) -> bool:
        return bool(self.task.options.name == "detection")

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor]) -> list[Any]:
        return list(self.task.predict([image.to(self.device) for image in images]))


def load_network(path: Path, device: str = "auto") -> Network:
    """The network of a checkpoint; its data and pretrained weights are not needed. ValueError says what is wrong."""
    from bbframe.data.images.image_transforms import eval_input
    from bbframe.run.build import make_task, saved_backbone
    from bbframe.run.checkpoint import fit_checkpoint, load_checkpoint
    from bbframe.run.configuration import parse_configuration

    saved = load_checkpoint(path)
    record = saved.get("bbframe")
    if not isinstance(record, Mapping) or "inputs" not in record:
        raise ValueError(
            f"checkpoint {path} does not say how its images were prepared: it is none of bbframe's, or of an earlier "
            "version; train again"
        )
    # how it was trained, on which devices and with which loggers, does not matter here
    plan = parse_configuration({**record["config"], "trainer": {}, "logger": {}, "callbacks": {}})
    plan = dataclasses.replace(plan, task=dataclasses.replace(plan.task, compile=False))
    backbone = saved_backbone(plan.backbone_options, saved)
    names = list(record["class_names"])
    task = make_task(plan, backbone, names)
    fit_checkpoint(path, saved, task)
    task.load_state_dict(saved["state_dict"])
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    prepare = eval_input(plan.data, Preprocessing(**record["inputs"]), backbone.config.num_channels)
    ids = record.get("category_ids") or range(len(names))
    return Network(task.eval().to(place), prepare, names, list(ids), place)


# what becomes of its answers

Row = Any  # what the tables want to know about an image


class Classes:
    """Probabilities (K,) as a caption below the image, and as predictions.csv."""

    def __init__(self, network: Network):
        self.names = network.class_names

    def draw(self, number: int, name: str, image: Image.Image, answer: Tensor, _: object) -> tuple[Image.Image, Row]:
        """The picture of an image, and its row of the table: the classes, the surest first."""
        from bbframe.report.annotate import draw_label

        shares, labels = answer.float().cpu().topk(min(TOP, len(self.names)))
        best = [(self.names[label], share) for share, label in zip(shares.tolist(), labels.tolist(), strict=True)]
        return draw_label(image, [f"{word}  {share:.1%}" for word, share in best[:CAPTION]]), (name, best)

    def write(self, out: Path, rows: Sequence[Row]) -> None:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        ends = ["", *(f"_{place}" for place in range(2, len(rows[0][1]) + 1))]
        writer.writerow(["image", *(column + end for end in ends for column in ("predicted", "probability"))])
        for name, best in rows:
            writer.writerow([name, *(cell for word, share in best for cell in (word, f"{share:.6f}"))])
        write_text(out / "predictions.csv", table.getvalue())


class Boxes:
    """Boxes and masks on the image, and as predictions.json and images.json."""

    def __init__(self, network: Network, threshold: float):
        self.names, self.ids, self.threshold = network.class_names, network.category_ids, threshold

    def draw(
        self, number: int, name: str, image: Image.Image, answer: dict[str, Tensor], scale: tuple[float, float]
    ) -> tuple[Image.Image, Row]:
        """The picture of an image, and its rows of the two tables. Everything is in the image's own pixels."""
        from bbframe.report.annotate import draw_detections
        from bbframe.report.coco_results import result_rows
        from bbframe.tasks.detection import to_original
        from bbframe.tasks.mask_rle import encode_mask

        place = {"scale": torch.tensor(scale), "size": torch.tensor([image.height, image.width])}
        answer = {key: value.cpu() for key, value in answer.items()}
        results: list[dict[str, Any]] = []
        drawn: dict[str, list[Any]] = {key: [] for key in answer}
        for i in range(len(answer["scores"])):  # one by one: a hundred masks of a large image would fill the memory
            one = to_original({key: value[i : i + 1] for key, value in answer.items()}, place)
            masks = [encode_mask(mask) for mask in one["masks"]] if "masks" in one else None
            results += result_rows(number, one["boxes"], one["scores"], one["labels"], masks, self.ids)
            if one["scores"][0] >= self.threshold:
                for key, value in one.items():
                    drawn[key].append(value[0].numpy())
        seen = {"id": number, "file_name": name, "width": image.width, "height": image.height}
        return draw_detections(image, drawn, self.names, self.threshold), (seen, results)

    def write(self, out: Path, rows: Sequence[Row]) -> None:
        categories = [{"id": i, "name": name} for i, name in zip(self.ids, self.names, strict=True)]
        images = {"images": [seen for seen, _ in rows], "annotations": [], "categories": categories}
        write_text(out / "images.json", json.dumps(images, indent=1) + "\n")
        write_text(out / "predictions.json", json.dumps([row for _, found in rows for row in found]) + "\n")


def predict(options: PredictOptions) -> int:
    """Predict, write and say what happened; the exit code is 0 when at least one image could be read.

    Raises ValueError for whatever is wrong with the options and the files they name.
    """
    started = time.perf_counter()
    checkpoint = find_checkpoint(Path(options.run))
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = Path(options.out) if options.out else home / "predictions"
    inputs = find_images(options.images, out)
    check_out(out, inputs, options.overwrite)
    with folder_of_results(out):
        network = load_network(checkpoint, options.device)
        rows, skipped = _predict(network, inputs, out, options)
    if skipped:
        more = f"\n  and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        print("skipped:", *skipped[:LISTED], sep="\n  ", end=f"{more}\n")
    seconds = time.perf_counter() - started
    print(f"predicted {rows} of {len(inputs)} images, {len(skipped)} skipped, {seconds:.1f} s: {out}")
    return 0 if rows else 1


def _predict(network: Network, inputs: Sequence[Input], out: Path, options: PredictOptions) -> tuple[int, list[str]]:
    """Write pictures and tables; returns how many images could be read, and which could not, and why."""
    results = Boxes(network, options.threshold) if network.detects else Classes(network)
    rows: list[Row] = []
    skipped: list[str] = []

    def read(item: Input) -> tuple[Image.Image, Tensor, tuple[float, float]] | str:
        try:
            image = read_image(item.path)
            return image, *network.prepare(image)
        except Exception as error:  # a decoder may raise anything on a broken file
            return reason(error)

    def finish(seen: tuple[Any, ...], answer: Any) -> Row:
        number, item, image, _, scale = seen
        picture, row = results.draw(number, item.name, image, answer, scale)
        item.picture.parent.mkdir(parents=True, exist_ok=True)
        picture.save(item.picture, quality=90)
        return row

    bar = Progress(transient=True, disable=not sys.stdout.isatty())
    try:
        with ThreadPoolExecutor() as pool, bar:
            job = bar.add_task("predicting", total=len(inputs))
            for start in range(0, len(inputs), options.batch_size):
                batch = inputs[start : start + options.batch_size]
                good: list[tuple[Any, ...]] = []
                for number, (item, loaded) in enumerate(zip(batch, pool.map(read, batch), strict=True), start + 1):
                    if isinstance(loaded, str):
                        skipped.append(f"{item.path}: {loaded}")
                        print(f"skipped {skipped[-1]}", file=sys.stderr)
                    else:
                        good.append((number, item, *loaded))
                answers = network([pixels for *_, pixels, _ in good]) if good else []
                rows += pool.map(finish, good, answers)
                bar.advance(job, len(batch))
    finally:  # also of what was done when somebody has had enough
        if rows:
            results.write(out, rows)
    return len(rows), skipped
