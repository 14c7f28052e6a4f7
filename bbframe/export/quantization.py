"""Eight-bit ONNX: convolutions and matrix products in whole numbers, and what that costs on the test images."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbframe.data.data_module import DataModule
from bbframe.export.export_check import milliseconds
from bbframe.predict.exported_file import ExportedNetwork, demand_package, open_exported
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.tasks.classification import Classification
from bbframe.tasks.detection import Detection, detected_images

CALIBRATED = 64  # training images
QUANTIZED = ("Conv", "MatMul", "Gemm")  # all else, such as norms, softmax and the choice of boxes, stays in float32


class CalibrationImages:
    """Training images, prepared as in an evaluation, one by one, as onnxruntime asks for them."""

    def __init__(self, images: list[Tensor]):
        self.images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {"images": image[None].numpy()}


def quantized(network: TrainedNetwork, path: Path, data: DataModule) -> dict[str, Any]:
    """Replace an ONNX file by one in eight bits; returns the metric, size and latency of both, and their `summary`."""
    quantization = demand_package("onnxruntime.quantization")
    onnx = demand_package("onnx")
    count = data.counts["train"]
    chosen = sorted({i * count // CALIBRATED for i in range(CALIBRATED)})
    images = [network.preprocessing(data.parts["train"].read(i)) for i in chosen]
    before = measured(network, path, data, images[0])
    properties = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simple, small = Path(folder) / "simple.onnx", Path(folder) / "small.onnx"
        quantization.quant_pre_process(str(path), str(simple), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(simple),
            str(small),
            CalibrationImages(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(small)
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, path)
    after = measured(network, path, data, images[0])
    metric = next(name for name in before if name not in ("bytes", "latency_ms"))
    return {
        "calibration_images": len(images),
        "quantized": list(QUANTIZED),
        "kept_in_float32": "all other operations, such as norms, softmax and the choice of boxes",
        "float32": before,
        "int8": after,
        "summary": (
            f"int8: {metric} {after[metric]:.4f} ({before[metric]:.4f} in float32) on {data.counts[data.test_part]} "
            f"{data.test_part} images, {after['bytes'] / 1e6:.1f} MB ({before['bytes'] / 1e6:.1f} MB), "
            f"{after['latency_ms']:.1f} ms an image ({before['latency_ms']:.1f} ms)"
        ),
    }


def measured(network: TrainedNetwork, path: Path, data: DataModule, image: Tensor) -> dict[str, float]:
    """The task's metric on the test images by an exported file, its size, and its latency for one image."""
    exported = open_exported(path, torch.get_num_threads())
    score: Any = _average_precision if isinstance(network.task, Detection) else _accuracy
    return {
        **score(network.task, exported, data),
        "bytes": path.stat().st_size,
        "latency_ms": round(milliseconds(exported.outputs, image[None]), 3),
    }


def _accuracy(task: Classification, exported: ExportedNetwork, data: DataModule) -> dict[str, float]:
    metrics = task.test_metrics.clone()
    metrics.reset()
    for batch in data.test_dataloader():
        metrics.update(exported.outputs(batch["image"])["probabilities"], batch["label"])
    data.teardown("test")
    return {"accuracy": round(float(metrics.compute()["test/accuracy"]), 6)}


def _average_precision(task: Detection, exported: ExportedNetwork, data: DataModule) -> dict[str, float]:
    metric = task.val_metric.clone()
    metric.reset()
    for batch in data.test_dataloader():
        metric.update(detected_images(batch, exported.answers(batch["image"])))
    data.teardown("test")
    computed = metric.compute()
    return {"mAP": round(float(computed["map" if "map" in computed else "bbox_map"]), 6)}
