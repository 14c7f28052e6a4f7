"""What reads a backbone's maps: classifiers and detectors."""

from bbframe.heads.head_options import (
    ClassifierOptions,
    FasterRCNNOptions,
    FCOSOptions,
    HeadOptions,
    MaskRCNNOptions,
    RetinaNetOptions,
)
from bbframe.registry import declare

__all__ = ["ClassifierOptions", "HeadOptions"]

declare(
    "head",
    {
        "linear": (ClassifierOptions, f"{__name__}.classifier:LinearHead"),
        "multi_level": (ClassifierOptions, f"{__name__}.classifier:MultiLevelHead"),
        "fcos": (FCOSOptions, f"{__name__}.one_stage:FCOSDetector"),
        "retinanet": (RetinaNetOptions, f"{__name__}.one_stage:RetinaNetDetector"),
        "faster_rcnn": (FasterRCNNOptions, f"{__name__}.two_stage:FasterRCNNDetector"),
        "mask_rcnn": (MaskRCNNOptions, f"{__name__}.two_stage:MaskRCNNDetector"),
    },
)
