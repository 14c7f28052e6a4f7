"""Data sets: options in, a LightningDataModule out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.data.boxes.box_options import CocoOptions, DetectionDataOptions, DigitScenesOptions, VocOptions
from bbframe.data.images.image_options import DigitsOptions, ImageDataOptions, ImageFolderOptions
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.shards.set_file import SET_FILE
from bbframe.registry import declare, make

if TYPE_CHECKING:
    from bbframe.data.data_module import DataModule

__all__ = ["DetectionDataOptions", "ImageDataOptions", "LoadingOptions", "make_data"]

declare(
    "data",
    {
        "digits": (DigitsOptions, f"{__name__}.images.digits:Digits"),
        "image_folder": (ImageFolderOptions, f"{__name__}.images.image_folder:ImageFolder"),
        "digit_scenes": (DigitScenesOptions, f"{__name__}.boxes.digit_scenes:DigitScenes"),
        "coco": (CocoOptions, f"{__name__}.boxes.coco:Coco"),
        "voc": (VocOptions, f"{__name__}.boxes.voc:Voc"),
    },
)


def make_data(options: LoadingOptions, *, masks: bool = False, **settings: Any) -> DataModule:
    """Build the data module that `options` describe.

    The settings are `seed`, which orders and augments the training images; `preprocessing`, the checkpoint's;
    `num_channels`, the backbone's; and `stride`, its largest, from which a data set of tiny images takes its size.
    With `masks` the targets of detection hold masks. Raises ValueError for images that are missing or cannot serve.
    """
    if masks and options.task != "detection":
        raise ValueError(f"data: {options.name} has no masks; choose a data set for detection")
    more = {"masks": masks} if options.task == "detection" else {}
    if options.shards is not None:
        from bbframe.data.shards.sharded_data import make_sharded

        return make_sharded(options, **settings, **more)
    root = getattr(options, "root", None)
    if root and Path(root, SET_FILE).is_file():
        raise ValueError(f"data: root={root} is a set of shards; type data.shards={root} in the place of data.root")
    return make("data", options, **settings, **more)
