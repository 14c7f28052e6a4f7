"""Data sets by name: options in, a LightningDataModule out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from bbframe.data.options_by_name import OPTIONS
from bbframe.preprocessing import Preprocessing
from bbframe.schema import nearest

if TYPE_CHECKING:
    from bbframe.data.base import DataModule

__all__ = ["OPTIONS", "make_data", "register"]

_MODULES: dict[type, Callable[..., DataModule]] = {}
_C = TypeVar("_C", bound=type)


def register(options: Any) -> Callable[[_C], _C]:
    """A class decorator: `make_data` builds the class below it from `options`, chosen by their `name`.

    The class is called as `make_data` is. One's own data set needs this line and the import of its module.
    """

    def add(cls: _C) -> _C:
        OPTIONS.setdefault(options.name, options)
        _MODULES[options] = cls
        return cls

    return add


def make_data(
    options: Any,
    *,
    seed: int,
    preprocessing: Preprocessing,
    num_channels: int,
    stride: int,
    masks: bool = False,
) -> DataModule:
    """Build the data module that `options` describe.

    `seed` orders and augments the training images; `preprocessing` is the checkpoint's; `num_channels` is the
    backbone's, and `stride` its largest, from which a data set of tiny images takes its size. With `masks` the targets
    of detection hold masks. Raises ValueError for images that are missing or cannot serve.
    """
    if OPTIONS.get(options.name) is not type(options):
        raise ValueError(f"data: unknown data set {options.name!r}{nearest(options.name, OPTIONS)}")
    if masks and options.task != "detection":
        raise ValueError(f"data: {options.name} has no masks; choose a data set for detection")
    if type(options) not in _MODULES:
        room = {"classification": "images", "detection": "boxes"}[options.task]
        importlib.import_module(f"{__name__}.{room}.{options.name}")  # its decorator registers it
    more = {"masks": masks} if options.task == "detection" else {}
    return _MODULES[type(options)](
        options, seed=seed, preprocessing=preprocessing, num_channels=num_channels, stride=stride, **more
    )
