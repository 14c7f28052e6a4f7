"""The ranges of the fields that backbones share, far above any published network and far below what no machine holds.

The largest published backbone, ViT-22B (arXiv:2302.05442), has 48 blocks of 6144 channels.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from bbframe.schema import Length, Range, checked_value, pair

Bands = Annotated[int, Range(1, 4096, "channels of the images")]
PatchSize = Annotated[int, Range(1, 512, "pixels")]
Width = Annotated[int, Range(1, 32_768, "channels")]
Depth = Annotated[int, Range(1, 256, "blocks")]
Heads = Annotated[int, Range(1, 512, "heads")]
PatchSides = PatchSize | tuple[PatchSize, PatchSize]
Padding = Annotated[int, Range(0, 256, "pixels")]
Paddings = Padding | tuple[Padding, Padding]
WindowSize = Annotated[int, Range(1, 256, "tokens")]
Ratio = Annotated[float, Range(0.25, 64)]
WholeRatio = Annotated[int | float, Range(0.25, 64)]
Widths = Annotated[tuple[Width, ...], Length(1, 8)]  # one a stage
Depths = Annotated[tuple[Depth, ...], Length(1, 8)]
HeadCounts = Annotated[tuple[Heads, ...], Length(1, 8)]
LayerScale = Annotated[float, Range(0, 10)]
Epsilon = Annotated[float, Range(0, 0.1, low_open=True)]
Deviation = Annotated[float, Range(0, 1, low_open=True)]
Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "selu", "silu", "swish"]


class _OneSide:
    """Reads one number for height and width, which some of the Hub's files write as two."""

    said = "an integer within 1..256, or a list of it twice"

    def __call__(self, value: Any, where: str) -> int:
        height, width = pair(checked_value(value, WindowSize | tuple[WindowSize, WindowSize], where))
        if height != width:
            raise ValueError(f"{where}={[height, width]} must be as high as wide, such as {height}")
        return height


Square = Annotated[int, _OneSide()]  # a size or stride
