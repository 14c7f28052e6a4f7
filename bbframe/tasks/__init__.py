"""What a network is trained for: Lightning modules on a backbone and a head, losses, metrics, optimisers."""

from bbframe.registry import declare
from bbframe.tasks.optimizer_options import (
    AdamWOptions,
    ConstantOptions,
    CosineOptions,
    MultiStepOptions,
    OptimOptions,
    ScheduleOptions,
    SGDOptions,
)
from bbframe.tasks.task_options import (
    AccuracyOptions,
    ClassificationOptions,
    CrossEntropyOptions,
    DetectionOptions,
    TaskOptions,
)

__all__ = ["OptimOptions", "ScheduleOptions", "TaskOptions"]

declare(
    "task",
    {
        "classification": (ClassificationOptions, f"{__name__}.classification:Classification"),
        "detection": (DetectionOptions, f"{__name__}.detection:Detection"),
    },
)
declare("loss", {"cross_entropy": (CrossEntropyOptions, f"{__name__}.losses:CrossEntropy")})
declare("metric", {name: (AccuracyOptions, f"{__name__}.metrics:{name}") for name in ("accuracy", "top5", "f1")})
declare(
    "optim",
    {
        "adamw": (AdamWOptions, f"{__name__}.optimizer:adamw"),
        "sgd": (SGDOptions, f"{__name__}.optimizer:sgd"),
    },
)
declare(
    "schedule",
    {
        "cosine": (CosineOptions, f"{__name__}.schedule:cosine"),
        "multistep": (MultiStepOptions, f"{__name__}.schedule:multistep"),
        "constant": (ConstantOptions, f"{__name__}.schedule:constant"),
    },
)
