"""The files of an export: one program in the format of torch.export, ONNX, TorchScript or OpenVINO."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.nn import functional as F

from bbframe.predict.exported_file import METADATA, demand_package
from bbframe.predict.quiet_loggers import quiet_loggers

MOST_IMAGES, LARGEST = 1024, 8192  # of a batch; pixels along a side
EXPORTERS = ("onnx_ir", "onnxscript", "torch.onnx", "torch.export")  # loggers; what they fail at is raised
MOST_RAISED = 512  # pixels of a least side


def traced_program(graph: nn.Module, example: Tensor, least: int) -> tuple[ExportedProgram, int]:
    """The program of a graph for any batch and any sides up to `LARGEST`, and its least side: `least` if it can be.

    Neighbourhoods of a fixed size, for instance, want maps that hold them. Raises ValueError, in one line, for a
    network that no program describes.
    """
    # first so that no program asks whether a map that may have one pixel has exactly one; then with larger maps
    attempts = [(True, least), (False, 2 * least)]
    why = ""
    while attempts:
        oblivious, side = attempts.pop(0)
        sides = (max(side * 3, size) // 2 * 2 + 1 + 4 * place for place, size in enumerate(example.shape[-2:]))
        x = F.interpolate(example.float(), tuple(sides)).to(example.dtype)
        with torch.no_grad(), _sizes_oblivious(oblivious):
            try:
                return torch.export.export(graph, (x,), dynamic_shapes=_shapes(side)), side
            except UserError as error:
                why = why or " ".join(str(error).split())
                raised = [int(n) for n in re.findall(r"Dim\('(?:height|width)', min=(\d+)", str(error))]
                if raised and side < max(raised) <= MOST_RAISED:
                    attempts.insert(0, (oblivious, max(raised)))
    raise ValueError(
        f"export: torch.export cannot describe this network for images of any size ({why:.300}); try "
        "format=torchscript"
    )


def _sizes_oblivious(on: bool) -> AbstractContextManager[Any]:
    """Whether a traced size that may be 1 is asked if it is, where this torch has that setting."""
    settings: Any = symbolic_shapes
    known = hasattr(settings, "backed_size_oblivious")
    return settings.patch(backed_size_oblivious=on) if known else nullcontext()


def _shapes(least: int) -> tuple[dict[int, Any], ...]:
    sides = {"min": least, "max": LARGEST}
    return ({0: Dim("batch", max=MOST_IMAGES), 2: Dim("height", **sides), 3: Dim("width", **sides)},)


def write_exported(graph: Any, example: Tensor, path: Path, format: str, metadata: dict[str, Any]) -> list[Path]:
    """Write a graph in a format, with its metadata inside; returns the files, `path` first.

    The least side that the metadata state rises where the format needs larger images. Raises ValueError, in one line,
    when a package is missing, or for a network that the exporter cannot follow.
    """
    if format in ("onnx", "openvino"):
        for name in ("onnx", "onnxscript", "onnxruntime" if format == "onnx" else "openvino"):
            demand_package(name)
    with warnings.catch_warnings(), quiet_loggers(*EXPORTERS):
        warnings.simplefilter("ignore")  # of tracers, about what is constant on purpose
        try:
            return _WRITERS[format](graph, example, path, metadata)
        except ValueError:
            raise
        except Exception as error:  # an exporter may raise anything
            causes = [error]
            while causes[-1].__cause__ is not None:
                causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
            why = " ".join(str(causes[-1]).split())
            raise ValueError(f"export: format={format} cannot express this network ({why:.300})") from error


def _write_torchscript(graph: Any, example: Tensor, path: Path, metadata: dict[str, Any]) -> list[Path]:
    with torch.no_grad():
        traced = torch.jit.trace(graph, example, check_trace=False)
    torch.jit.save(traced, path, _extra_files={METADATA: json.dumps(metadata)})
    return [path]


def _write_pt2(graph: Any, example: Tensor, path: Path, metadata: dict[str, Any]) -> list[Path]:
    program, metadata["sides"][0] = traced_program(graph, example, metadata["sides"][0])
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})
    return [path]


def _write_onnx(graph: Any, example: Tensor, path: Path, metadata: dict[str, Any]) -> list[Path]:
    program, metadata["sides"][0] = traced_program(graph, example, metadata["sides"][0])
    model = onnx_model(program, graph.outputs)
    model.metadata_props[METADATA] = json.dumps(metadata)
    return _save_onnx(model, path)


def _write_openvino(graph: Any, example: Tensor, path: Path, metadata: dict[str, Any]) -> list[Path]:
    openvino = demand_package("openvino")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, *_ = _write_onnx(graph, example, Path(folder) / "model.onnx", metadata)
        converted = openvino.convert_model(source)
        converted.set_rt_info(json.dumps(metadata), ["bbframe"])
        openvino.save_model(converted, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


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


_WRITERS: dict[str, Callable[[Any, Tensor, Path, dict[str, Any]], list[Path]]] = {
    "torchscript": _write_torchscript,
    "pt2": _write_pt2,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}
