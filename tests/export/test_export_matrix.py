"""Every backbone under every head, in every format, at several sizes; slow."""

from __future__ import annotations

import os

import pytest

from bbframe.export.export_check import compare_outputs, merge, milliseconds
from bbframe.export.export_options import ENDS
from bbframe.export.network_export import as_outputs
from tests.export.made_networks import CLASSIFIERS, DETECTORS, TIMM, inputs, made_network
from tests.export.test_exported_files import written
from tests.tiny import names

MATRIX = [(backbone, head) for backbone in [*names(), TIMM] for head in (*CLASSIFIERS, *DETECTORS)]


def check(backbone, head, format, path):
    network = made_network(backbone, head)
    size = (273, 301) if head in DETECTORS else (137, 165)
    exported = written(network, path, format, size=size)
    least = exported.metadata["sides"][0]
    results = []
    for height, width, batch in ((least, least, 1), (least + 7, 2 * least + 2, 3), (2 * least, least + 33, 2)):
        x = inputs(network, height, width, batch)
        results.append(
            compare_outputs(exported.outputs(x), as_outputs(network, list(x), exported.metadata["outputs"]))
        )
    found = merge(results)
    if table := os.environ.get("BBFRAME_EXPORT_TABLE"):
        ms = milliseconds(exported.outputs, x)
        worst = "  ".join(f"{name} {value:.1e}" for name, value in found["worst"].items())
        with open(table, "a") as file:
            file.write(f"{backbone:15} {head:12} {format:12} sides from {least:4} ")
            file.write(f"{found['agreeing']:4} of {found['compared']:4}  {ms:7.1f} ms  {worst}\n")
    assert found["agreeing"] >= 0.98 * found["compared"] > 0
    assert max(found["worst"].values()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torchscript", "pt2"])
@pytest.mark.parametrize(("backbone", "head"), MATRIX)
def test_an_export_of_torch_is_the_network(backbone, head, format, tmp_path):
    check(backbone, head, format, tmp_path / f"model{ENDS[format]}")


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize(("backbone", "head"), MATRIX)
def test_an_onnx_export_is_the_network(backbone, head, format, tmp_path):
    pytest.importorskip("onnxruntime" if format == "onnx" else "openvino")
    check(backbone, head, format, tmp_path / f"model{ENDS[format]}")
