"""The options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bbframe.schema import Name, Options


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """`run` is a run folder or a checkpoint, `out` the file; by default <run>/export/model.<ending>.

    With `preprocessing` the file takes images of bytes and prepares them itself. `quantize` computes in eight bits
    where that is possible. `images` are files and folders on which the export is checked, by default those that the
    run tested. `overwrite` allows an earlier export to be replaced. Raises ValueError for what does not go together.
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
