"""The options of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bbframe.schema import Name, Options, Range, Share


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """`run` is whatever `bbframe.load` takes, `images` are files, folders and patterns, `out` takes the results.

    Without `out` the results go to <run folder>/predictions; of a network on the Hub, to
    outputs/<user>--<name>/predictions. Boxes with a score of `threshold` or more are drawn. `overwrite` allows the
    results of an earlier prediction to be replaced. Raises ValueError for an impossible value.
    """

    prefix: ClassVar[str] = "predict: "

    run: Name
    images: tuple[Name, ...]
    out: Name | None = None
    threshold: Share = 0.5
    batch_size: Annotated[int, Range(1, 65_536, "images")] = 8
    device: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise ValueError("predict: images must name files or folders")
        if self.device in ("gpu", "cuda"):
            import torch

            if not torch.cuda.is_available():
                finds = f"torch {torch.__version__} finds none here"
                raise ValueError(f"predict: device={self.device}, but {finds}; use device=auto")
