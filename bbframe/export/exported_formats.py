"""The files of an export: one program in the format of torch.export, ONNX, TorchScript or OpenVINO."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from bbframe.predict.exported_file import METADATA, SUFFIXES, demand_package

MOST_IMAGES, LARGEST = 1024, 8192  # of a batch; pixels along a side
ENDS = {name: suffix for suffix, name in SUFFIXES.items()}


def traced_program(graph: nn.Module, example: Tensor, least: int) -> ExportedProgram:
    """The program of a graph for any batch, and sides from `least` to `LARGEST`."""
    shapes = (
        {0: Dim("batch", max=MOST_IMAGES), 2: Dim("height", min=least, max=LARGEST), 3: Dim("width", min=least, max=LARGEST)},
    )
    # so that no program asks whether a map that may have one pixel has exactly one
    with torch.no_grad(), symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(graph, (example,), dynamic_shapes=shapes)


def write_exported(graph: Any, example: Tensor, path: Path, format: str, metadata: Mapping[str, Any]) -> list[Path]:
    """Write a graph in a format, with its metadata inside; returns the files, `path` first.

    Raises ValueError when a package is missing, or for a network that the exporter cannot follow.
    """
    if format in ("onnx", "openvino"):
        for name in ("onnx", "onnxscript", "onnxruntime" if format == "onnx" else "openvino"):
            demand_package(name)
    text = json.dumps(metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracers, about what is constant on purpose
        if format == "torchscript":
            with torch.no_grad():
                traced = torch.jit.trace(graph, example, check_trace=False)
            torch.jit.save(traced, path, _extra_files={METADATA: text})
            return [path]
        program = traced_program(graph, example, metadata["sides"][0])
        if format == "pt2":
            torch.export.save(program, path, extra_files={METADATA: text})
            return [path]
        model = onnx_model(program, graph.outputs)
        model.metadata_props[METADATA] = text
        if format == "onnx":
            return _save_onnx(model, path)
        return _save_openvino(model, path, text)


def onnx_model(program: ExportedProgram, outputs: tuple[str, ...]) -> Any:
    """The program as an `onnx_ir.Model`; its input is called "images", its outputs as said."""
    found = torch.onnx.export(program, dynamo=True, verbose=False)
    assert found is not None
    graph = found.model.graph
    graph.inputs[0].name = "images"
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name
    return found.model


def _save_onnx(model: Any, path: Path) -> list[Path]:
    import onnx_ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    beside = None if size < 1.9e9 else f"{path.name}.data"  # protobuf holds 2 GB
    onnx_ir.save(model, path, external_data=beside)
    return [path] if beside is None else [path, path.with_name(beside)]


def _save_openvino(model: Any, path: Path, text: str) -> list[Path]:
    import tempfile

    openvino = demand_package("openvino")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = _save_onnx(model, Path(folder) / "model.onnx")[0]
        converted = openvino.convert_model(source)
        converted.set_rt_info(text, ["bbframe"])
        openvino.save_model(converted, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]
