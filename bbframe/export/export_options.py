"""The options of an export, and where its file goes; nothing heavy is imported for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bbframe.predict.network_loading import EXPORTED, FoundNetwork, find_network
from bbframe.schema import Name, Options

ENDS = {format: ending for ending, format in EXPORTED.items()}


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """`run` is a run folder, a checkpoint, a saved folder or an id on the Hub, `out` the file.

    Without `out` it is <folder>/export/model.<ending>, or outputs/<user>--<name>/export/model.<ending> of a network on
    the Hub. With `preprocessing` the file takes images of bytes and prepares them itself. `quantize` computes in eight
    bits where that is possible. `images` are files and folders on which the export is checked, by default those that
    the run tested; a saved network has none. `overwrite` allows an earlier export to be replaced. Raises ValueError
    for what does not go together.
    """

    prefix: ClassVar[str] = "export: "

    run: Name
    format: Literal["onnx", "torchscript", "pt2", "openvino"] = "onnx"
    out: Name | None = None
    preprocessing: bool = False
    quantize: Literal["int8"] | None = None
    images: tuple[Name, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize and self.format != "onnx":
            raise ValueError(f"export: quantize={self.quantize} makes ONNX files; use format=onnx, not {self.format}")
        if self.quantize and self.preprocessing:
            raise ValueError(
                f"export: quantize={self.quantize} with preprocessing=true would compute the resizing in eight bits; "
                "leave preprocessing out"
            )
        if self.quantize and self.images:
            raise ValueError(
                f"export: quantize={self.quantize} is measured on the run's own test images; leave images out"
            )


def export_source(options: ExportOptions) -> tuple[FoundNetwork, Path]:
    """The network that options name, and the file to write; nothing is loaded.

    Raises ValueError for a network that is not there or exported already, one that needs images, a file of the wrong
    ending, and one that is there already.
    """
    end = ENDS[options.format]
    if options.out and Path(options.out).suffix != end:
        raise ValueError(f"export: out={options.out} must end in {end} for format={options.format}")
    found = find_network(options.run)
    if found.kind == "exported":
        raise ValueError(f"export: run={options.run} is exported already; give the run that it comes from")
    if found.kind != "checkpoint":
        kinds = {"saved": "is a saved network", "hub": "is not here, so that it is taken for one on the Hub"}
        if options.quantize:
            raise ValueError(
                f"export: run={options.run} {kinds[found.kind]}; quantize={options.quantize} needs the images "
                "of a run, so give a run folder"
            )
        if not options.images:
            raise ValueError(
                f"export: run={options.run} {kinds[found.kind]}, without the images of its run; give images= to check "
                "the export on"
            )
    path = Path(options.out).expanduser() if options.out else found.home / "export" / f"model{end}"
    if path.exists() and not options.overwrite:
        raise ValueError(f"export: {path} is there already; give another out=, or overwrite=true replaces it")
    return found, path
