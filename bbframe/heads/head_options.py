"""The options of heads; light, so that errors come at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bbframe.heads.levels import choose_pyramid, nearest_strides
from bbframe.schema import Name, Options, Range, Rate, Share, demand

ONE_STAGE, TWO_STAGE = (8, 16, 32), (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class HeadOptions(Options):
    """What every head's options state: the `task` that it serves, and whether it learns from and predicts `masks`."""

    task: ClassVar[str]
    masks: ClassVar[bool] = False
    prefix: ClassVar[str] = "head: "

    name: Name

    def preferred_strides(self, declared: Sequence[int]) -> list[int] | None:
        """The strides, among the `declared` ones, of the maps that the head reads unless a configuration selects some.

        None leaves the backbone's own selection.
        """
        return None

    def check_strides(self, strides: Sequence[int], declared: Sequence[int]) -> None:
        """Raise ValueError if maps of these strides, selected among the `declared` ones, cannot serve."""


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(HeadOptions):
    """`linear` averages the last map, `multi_level` all selected maps; `dropout` acts before the linear layer."""

    task = "classification"

    name: Literal["linear", "multi_level"] = "linear"
    dropout: Rate = 0.0


@dataclass(frozen=True, kw_only=True)
class DetectionHeadOptions(HeadOptions):
    """What every detector takes. `wanted` are the strides of the maps that it reads where a backbone has them."""

    task = "detection"
    wanted: ClassVar[tuple[int, ...]] = ONE_STAGE

    detections_per_image: Annotated[int, Range(1, 10_000)] = 100

    def preferred_strides(self, declared: Sequence[int]) -> list[int] | None:
        return nearest_strides(self.wanted, declared)


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(DetectionHeadOptions):
    """A pyramid of maps, and one of torchvision's detectors on it.

    `pyramid` is "fpn" (arXiv:1612.03144) for maps of rising strides or "simple" (arXiv:2203.16527) for one map of a
    plain transformer; null chooses by the strides. Its levels have `channels`; `extra_levels` coarser ones follow
    (null: 2 for one-stage detectors, 1 for R-CNNs). `num_convs` is the depth of a one-stage detector's towers.
    `anchor_scale` is the side of anchors in strides of their level (null: 1 for FCOS, 4 for RetinaNet, 8 for R-CNNs).
    `score_threshold` and `nms_threshold` decide which boxes are kept (null: torchvision's; 0.05 for FCOS's scores).
    """

    pyramid: Literal["fpn", "simple"] | None = None
    channels: Annotated[int, Range(1, 1024)] = 256
    extra_levels: Annotated[int, Range(0, 4)] | None = None  # each doubles the stride
    num_convs: Annotated[int, Range(1, 16)] = 4
    anchor_scale: Annotated[float, Range(0, 64, "strides of a level", low_open=True)] | None = None
    score_threshold: Share | None = None
    nms_threshold: Share | None = None

    def check_strides(self, strides: Sequence[int], declared: Sequence[int]) -> None:
        choose_pyramid(self.pyramid, strides, declared)


@dataclass(frozen=True, kw_only=True)
class FCOSOptions(DetectorOptions):
    """FCOS (arXiv:1904.01355)."""

    name: Literal["fcos"] = "fcos"

    def __post_init__(self) -> None:
        super().__post_init__()
        near = max(round(self.channels / 32), 1) * 32
        rule = f"must be a multiple of 32 for fcos, whose norms have 32 groups; the nearest is {near}"
        demand(self.channels % 32 == 0, "head: channels", self.channels, rule)


@dataclass(frozen=True, kw_only=True)
class RetinaNetOptions(DetectorOptions):
    """RetinaNet (arXiv:1708.02002)."""

    name: Literal["retinanet"] = "retinanet"


@dataclass(frozen=True, kw_only=True)
class FasterRCNNOptions(DetectorOptions):
    """Faster R-CNN (arXiv:1506.01497)."""

    wanted = TWO_STAGE

    name: Literal["faster_rcnn"] = "faster_rcnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "is the depth of the towers of fcos and retinanet; R-CNNs have none: leave it out"
        demand(self.num_convs == 4, "head: num_convs", self.num_convs, rule)


@dataclass(frozen=True, kw_only=True)
class MaskRCNNOptions(FasterRCNNOptions):
    """Mask R-CNN (arXiv:1703.06870)."""

    masks = True

    name: Literal["mask_rcnn"] = "mask_rcnn"  # type: ignore[assignment]
