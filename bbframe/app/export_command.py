"""`bbframe export`: a trained network as a file for other programs."""

from __future__ import annotations

from collections.abc import Sequence

from bbframe.app.text_arguments import typed_arguments
from bbframe.schema import parse

EXPORT_HELP = """A trained network as a file for other programs, checked against PyTorch on real images.

usage: bbframe export run=<run folder> [format=onnx] [key=value] ...

The file takes images of one height and width, within the limits that its metadata call `sides`. They also hold class
names, preprocessing and thresholds. A detector gives boxes, scores, labels and their count, chosen as in a prediction.
export.json beside it says how far it is from PyTorch, and how long both take. The file serves as run= of bbframe
predict.

options:
  run=SOURCE          a run folder, one of its checkpoints, a saved folder, or its id on the Hub
  format=onnx         onnx, torchscript, pt2 or openvino (pip install 'bbframe[onnx]' or 'bbframe[openvino]')
  out=FILE            default: <folder>/export/model.<ending>; from the Hub: outputs/<user>--<name>/export/...
  preprocessing=true  the file takes bytes (B, 3, H, W), red green blue, and prepares them itself
  quantize=int8       eight-bit numbers, calibrated on training images; what that costs is measured
  images=PATH         images for the check; default: those that the run was tested on; needed for a saved folder
  overwrite=true      replace an export that is there

examples:
  bbframe export run=outputs/classification/<run>
  bbframe export run=outputs/detection/<run> format=openvino preprocessing=true"""


def export(arguments: Sequence[str]) -> int:
    """Write a trained network as a command line says; returns the exit code."""
    from bbframe.export.export_options import ExportOptions, export_source

    options = parse(ExportOptions, typed_arguments(arguments, "export", ("run", "out")), "export")
    export_source(options)  # what the words alone decide comes before heavy imports
    from bbframe.export.network_export import export_network
    from bbframe.run.masking import outward

    path, said = export_network(options)
    times, (low, high) = said["latency"]["batch 1"], said["metadata"]["sides"]
    size = sum(file["bytes"] for file in said["files"].values()) / 1e6
    worst = ", ".join(f"{name} within {value:.1e}" for name, value in said["worst"].items()) or "none to compare"
    print(
        f"{outward(str(path))}: {size:.1f} MB, sides from {low} to {high} pixels, {said['agreeing']} of "
        f"{said['compared']} results as PyTorch's ({worst}), {times['export_ms']:.1f} ms an image "
        f"(PyTorch {times['pytorch_ms']:.1f} ms)"
    )
    if "quantize" in said:
        print(said["quantize"]["summary"])
    return 0
