"""One export: the file, its comparison with PyTorch on real images, and `export.json` beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor

import bbframe
from bbframe.export.check_images import named_pictures, run_images, tested_pictures
from bbframe.export.export_check import Outputs, compare_outputs, demand_agreement, merge, milliseconds, tolerances
from bbframe.export.export_options import ExportOptions, export_source
from bbframe.export.exported_formats import LARGEST, write_exported
from bbframe.export.network_graphs import network_graph
from bbframe.files import write_text
from bbframe.predict.exported_file import ExportedNetwork, open_exported
from bbframe.predict.network_loading import load_predictor
from bbframe.predict.trained_network import TrainedNetwork
from bbframe.preprocessing import BoxPreprocessing
from bbframe.run.record import cpu_name

VERSION = 1  # of the metadata
REPORT = "export.json"
BATCHES = (1, 8)  # whose latency is measured
MEASURED = ("compared", "agreeing", "worst", "mean", "tolerances")  # of a file beside PyTorch


def export_network(options: ExportOptions) -> tuple[Path, dict[str, Any]]:
    """Write a trained network as a file; returns it and what export.json says.

    Nothing is left unless the file gives PyTorch's results on real images. Raises ValueError, in one line, for
    options, packages or networks with which that cannot be, and with the numbers for a file that differs.
    """
    source, path = export_source(options)
    reports = read_reports(path.with_name(REPORT))
    network: Any = load_predictor(source.source, "cpu")
    graph = network_graph(network, options.preprocessing)
    data = None if options.images else _data_of(Path(source.source), network)
    pictures = named_pictures(options.images, network) if data is None else tested_pictures(data)
    metadata = file_metadata(network, graph.outputs, options.preprocessing)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        example = torch.stack([file_input(network, pictures[0][1], options.preprocessing)] * 2)
        files = write_exported(graph, larger_example(example, metadata["sides"][0]), draft, options.format, metadata)
        said: dict[str, Any] = {"format": options.format}
        said |= compared(network, graph, draft, pictures, options, tolerances(options.preprocessing))
        if options.quantize:
            from bbframe.export.quantization import quantized

            assert data is not None
            float32 = {name: said[name] for name in MEASURED}
            said["quantize"] = quantized(network, draft, data)
            said["quantize"]["float32"] |= float32
            said |= compared(network, graph, draft, pictures, options)
        for file in files:
            shutil.move(file, path.with_name(file.name))
    said["files"] = {
        name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for name, file in ((file.name, path.with_name(file.name)) for file in files)
    }
    said |= {"metadata": metadata, "versions": versions(), "processor": cpu_name(), "threads": torch.get_num_threads()}
    write_text(path.with_name(REPORT), json.dumps({**reports, path.name: said}, indent=1) + "\n")
    return path, said


def read_reports(path: Path) -> dict[str, Any]:
    """What export.json says of the files beside it: {file name: its report}. Raises ValueError for another file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"export: {path} cannot be read ({error}); remove it, or give another out=") from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) and "format" in one for one in found.values()):
        raise ValueError(f"export: {path} is no report of exports; move it, or give another out=")
    return found


def file_metadata(network: TrainedNetwork, outputs: Sequence[str], inside: bool) -> dict[str, Any]:
    """What a file says of itself."""
    model = getattr(network.head, "model", None)
    heads = getattr(model, "roi_heads", model)
    stride = max(network.backbone.strides)
    least = min(stride, *network.preprocessing.size) if network.task_name == "classification" else stride
    return {
        "version": VERSION,
        "bbframe": bbframe.__version__,
        "task": network.task_name,
        "class_names": network.class_names,
        "category_ids": network.category_ids,
        "inside": inside,
        "input": {
            "name": "images",
            "layout": "NCHW",
            "type": "uint8, red green blue, 0..255" if inside else "float32, normalised",
            "channels": 3 if inside else network.backbone.config.num_channels,
        },
        "outputs": list(outputs),
        "sides": [2 if inside and network.task_name == "classification" else least, LARGEST],
        "preprocessing": asdict(network.preprocessing),
        "decoding": asdict(network.decoding),
        "thresholds": {
            "temperature": network.calibration.temperature,
            "distance": 1.0 if "distance" in outputs else None,
            "detection": 0.5 if network.task_name == "detection" else None,
            "score": getattr(heads, "score_thresh", None),
            "overlap": getattr(heads, "nms_thresh", None),
        },
    }


def file_input(network: TrainedNetwork, picture: Image.Image, inside: bool) -> Tensor:
    """What a file takes of an image: bytes, or the normalised input."""
    return pil_to_tensor(picture.convert("RGB")) if inside else network.preprocessing(picture)


def larger_example(example: Tensor, least: int) -> Tensor:
    """An example whose sides are odd, unlike each other and well above the least one, which tracers remember."""
    height, width = (
        max(side, 3 * least) // 2 * 2 + more for side, more in zip(example.shape[-2:], (1, 5), strict=True)
    )
    return F.interpolate(example.float(), (height, width)).to(example.dtype)


def as_outputs(network: TrainedNetwork, inputs: Sequence[Tensor], outputs: Sequence[str]) -> Outputs:
    """What PyTorch says about prepared images, in the layout of an exported file."""
    answers = network.answers(inputs)
    if "probabilities" in outputs:
        found = {"probabilities": torch.stack([answer.probabilities for answer in answers])}
        if "distance" in outputs:
            found["distance"] = torch.tensor([answer.distance for answer in answers])
        return found
    counts = torch.tensor([len(answer["scores"]) for answer in answers])
    most = max(1, int(counts.max()))
    rows: dict[str, list[Tensor]] = {}
    for answer in answers:
        for name, x in answer.items():
            x = x[:, 0] if name == "masks" else x
            rows.setdefault(name, []).append(torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])]))
    return {"count": counts, **{name: torch.stack(x) for name, x in rows.items()}}


def compared(
    network: TrainedNetwork,
    graph: Any,
    path: Path,
    pictures: Sequence[tuple[str, Image.Image]],
    options: ExportOptions,
    allowed: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The file's results on images beside PyTorch's, and the latency of both.

    Raises ValueError if they differ by more than `allowed`; without it the differences are only measured.
    """
    exported = open_exported(path, torch.get_num_threads())
    results = []
    shapes: set[tuple[int, ...]] = set()
    for batch, expected in _batches(network, exported, [picture for _, picture in pictures], options.preprocessing):
        shapes.add(tuple(batch.shape))
        results.append(compare_outputs(exported.outputs(batch), expected))
    found = merge(results)
    if allowed is not None:
        demand_agreement(path.name, found, allowed)
    image = file_input(network, pictures[0][1], options.preprocessing)
    times: dict[str, Any] = {}
    for size in BATCHES:
        batch = torch.stack([image] * size)
        with torch.no_grad():
            ours = milliseconds(graph, batch)
        times[f"batch {size}"] = {
            "pytorch_ms": round(ours, 3),
            "export_ms": round(milliseconds(exported.outputs, batch), 3),
        }
    return {
        **found,
        "tolerances": allowed,
        "shapes": sorted(map(list, shapes)),
        "images": [name for name, _ in pictures],
        "latency": times,
    }


def _batches(network: TrainedNetwork, exported: ExportedNetwork, pictures: Sequence[Image.Image], inside: bool) -> Any:
    """Batches of several sizes and numbers of images, and what PyTorch says of each."""
    names = exported.metadata["outputs"]
    alike: dict[tuple[int, ...], list[Image.Image]] = {}
    for picture in pictures:
        alike.setdefault(tuple(file_input(network, picture, inside).shape), []).append(picture)
    for group in alike.values():
        for part in (group[:1], group[1:3], group[3:]):
            if part:
                batch = torch.stack([file_input(network, picture, inside) for picture in part])
                expected = as_outputs(network, [network.preprocessing(picture) for picture in part], names)
                if inside and isinstance(network.preprocessing, BoxPreprocessing):
                    x, y = network.preprocessing.scale(part[0].size)
                    expected["boxes"] = expected["boxes"] / torch.tensor([x, y, x, y])
                yield batch, expected
    if inside:
        return
    some = torch.stack([network.preprocessing(picture) for picture in next(iter(alike.values()))[:2]])
    least = exported.metadata["sides"][0]
    for height, width in ((least, least), (some.shape[2] + 7, some.shape[3] + 2), (2 * least + 1, 3 * least)):
        resized = F.interpolate(some, (height, width), mode="bilinear", antialias=True)
        yield resized, as_outputs(network, list(resized), names)


def _data_of(checkpoint: Path, network: TrainedNetwork) -> Any:
    try:
        return run_images(checkpoint, network)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"export: the run's images, on which it is checked, are gone ({error}); give images="
        ) from error


def versions() -> dict[str, str]:
    """The versions of the packages that took part."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("bbframe", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "bbframe": bbframe.__version__}
