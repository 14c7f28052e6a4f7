"""An exported network, whichever format its file has: images in, named outputs out."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from bbframe.imaging.decode import Decoding
from bbframe.predict.image_predictor import THRESHOLD, ImagePredictor
from bbframe.predict.image_results import ClassResult
from bbframe.predict.network_loading import EXPORTED
from bbframe.predict.quiet_loggers import quiet_loggers
from bbframe.predict.trained_network import demand_finite
from bbframe.preprocessing import BoxPreprocessing, Preprocessing
from bbframe.schema import parse
from bbframe.tasks.calibration import Calibration

METADATA = "bbframe.json"  # the name under which a file keeps what bbframe knows of it
EXTRAS = {
    "onnxruntime.quantization": "onnx",
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
}
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # packages that open the formats


def demand_package(name: str) -> Any:
    """Import a package of an extra. Raises ValueError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} is not installed; pip install 'bbframe[{EXTRAS.get(name, 'onnx')}]'") from error


class PixelsAsTheyAre(Preprocessing):
    """The preprocessing of a file that prepares images itself: bytes (3, H, W), red green blue."""

    def __str__(self) -> str:
        return "none, because the file prepares images itself"

    def pixels(self, image: Image.Image) -> Tensor:
        return pil_to_tensor(image.convert("RGB"))

    def normalised(self, pixels: Tensor) -> Tensor:
        return pixels


class ExportedNetwork(ImagePredictor):
    """A file that `bbframe export` wrote, called on images as the trained network itself, on the CPU.

    `metadata` is what the file says of itself: task, class names, preprocessing, thresholds and the sides it takes.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], run: Callable[[Tensor], list[Tensor]]):
        self.path, self.metadata, self._run = path, metadata, run
        self.origin = str(path)
        self.task_name, self.class_names = metadata["task"], list(metadata["class_names"])
        self.category_ids = list(metadata["category_ids"])
        self.calibration = Calibration(temperature=metadata["thresholds"]["temperature"])
        self.decoding = Decoding(**metadata["decoding"])
        kind = BoxPreprocessing if self.task_name == "detection" else Preprocessing
        self.preprocessing = (
            PixelsAsTheyAre() if metadata["inside"] else parse(kind, metadata["preprocessing"], "file")
        )

    def __repr__(self) -> str:
        format, count = EXPORTED[self.path.suffix], len(self.class_names)
        return f"ExportedNetwork({str(self.path)!r}, {format}, {self.task_name}, {count} classes)"

    def __call__(self, images: Any, *, threshold: float = THRESHOLD, batch_size: int = 8) -> Any:
        """As `predict_images`."""
        return self.predict_images(images, threshold=threshold, batch_size=batch_size)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name for images (B, C, H, W) of the type that the file takes.

        Raises ValueError for images whose sides it does not take.
        """
        low, high = self.metadata["sides"]
        height, width = images.shape[-2:]
        if not low <= min(height, width) <= max(height, width) <= high:
            raise ValueError(f"{self.path}: images of {width}x{height} pixels; sides must be from {low} to {high}")
        return dict(zip(self.metadata["outputs"], self._run(images.contiguous()), strict=True))

    def answers(self, inputs: Sequence[Tensor]) -> list[Any]:
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, x in enumerate(inputs):
            alike.setdefault(tuple(x.shape), []).append(place)
        found: list[Any] = [None] * len(inputs)
        for places in alike.values():
            outputs = self.outputs(torch.stack([inputs[place] for place in places]))
            demand_finite(self.origin, [x for x in outputs.values() if x.is_floating_point()])
            for row, place in enumerate(places):
                found[place] = self._answer({name: x[row] for name, x in outputs.items()})
        return found

    def _answer(self, row: dict[str, Tensor]) -> Any:
        if "probabilities" in row:
            far = row.get("distance")
            return ClassResult(row["probabilities"], self.class_names, None if far is None else float(far))
        count = int(row.pop("count"))
        answer = {name: x[:count] for name, x in row.items()}
        if "masks" in answer:
            answer["masks"] = answer["masks"][:, None]
        return answer


def open_exported(path: Path, threads: int | None = None) -> ExportedNetwork:
    """Open an exported file; `threads` bounds what it computes with where the format lets one say so.

    Raises ValueError, in one line, for a file that is missing, broken, of no known format, or not written by
    `bbframe export`.
    """
    if path.suffix not in EXPORTED:
        raise ValueError(f"{path}: an exported network ends in {', '.join(EXPORTED)}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    format = EXPORTED[path.suffix]
    if format in _RUNTIMES:
        demand_package(_RUNTIMES[format])
    try:
        with quiet_loggers("torch.export"):
            text, run = _OPENERS[format](path, threads)
        found = ExportedNetwork(path, json.loads(text), run) if text else None
    except Exception as error:  # a reader may raise anything on a broken file
        again = "export it again, or copy it with its .bin" if format == "openvino" else "export it again"
        raise ValueError(
            f"{path}: cannot be read as {format} ({_reason(error)}); it is broken or incomplete: {again}"
        ) from error
    if found is None:
        raise ValueError(f"{path}: bbframe export did not write this file; its metadata has no {METADATA}")
    return found


def _reason(error: Exception) -> str:
    """What an error says, in a few words."""
    text = str(error).strip()
    if text.startswith("Exception from"):  # OpenVINO begins with the places in its sources
        text = text.splitlines()[-1]
    text = re.sub(r"^\[ONNXRuntimeError\].*?failed: *", "", " ".join(text.split()))
    return f"{text.split('. ')[0]:.150}".rstrip(".! ") or type(error).__name__


def _open_pt2(path: Path, threads: int | None) -> tuple[str, Callable[[Tensor], list[Tensor]]]:
    extra = {METADATA: ""}
    program = torch.export.load(path, extra_files=extra)
    # its guards ask more than the network needs, for instance that the smallest map has more than one pixel
    module = program.module(check_guards=False)
    return extra[METADATA], lambda x: list(module(x))


def _open_torchscript(path: Path, threads: int | None) -> tuple[str, Callable[[Tensor], list[Tensor]]]:
    extra: dict[str, Any] = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export, which is format=pt2
        module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    text = extra[METADATA]
    return text if isinstance(text, str) else text.decode(), lambda x: list(module(x))


def _open_onnx(path: Path, threads: int | None) -> tuple[str, Callable[[Tensor], list[Tensor]]]:
    runtime = demand_package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    text = session.get_modelmeta().custom_metadata_map.get(METADATA, "")
    return text, lambda x: [torch.from_numpy(value) for value in session.run(None, {name: x.numpy()})]


def _open_openvino(path: Path, threads: int | None) -> tuple[str, Callable[[Tensor], list[Tensor]]]:
    openvino = demand_package("openvino")
    with path.open("rb") as file:
        if b"<net" not in file.read(1000):  # OpenVINO would try its readers of all other formats, and they log
            raise ValueError("it does not begin as a network")
    core = openvino.Core()
    model = core.read_model(path)
    text = model.get_rt_info(["bbframe"]).astype(str) if model.has_rt_info(["bbframe"]) else ""
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = core.compile_model(model, "CPU", settings)
    count = len(compiled.outputs)

    def run(x: Tensor) -> list[Tensor]:
        found = compiled(x.numpy())
        return [torch.from_numpy(found[i].copy()) for i in range(count)]

    return text, run


_OPENERS: dict[str, Callable[[Path, int | None], tuple[str, Callable[[Tensor], list[Tensor]]]]] = {
    "pt2": _open_pt2,
    "onnx": _open_onnx,
    "torchscript": _open_torchscript,
    "openvino": _open_openvino,
}
