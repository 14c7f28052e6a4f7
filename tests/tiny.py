"""Small backbones for the tests: every architecture that there is, in the sizes of its golden cases."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bbframe
from bbframe.auto import backbone_class

GOLDEN = Path(__file__).parent / "golden"
_SELECTION = ("out_features", "out_indices", "out_strides")


def names() -> list[str]:
    """Every architecture of ours."""
    return [name for name in bbframe.list_backbones() if name != "timm"]


def cases() -> list[str]:
    """Every golden case, as "architecture/case"."""
    return [f"{name}/{path.name}" for name in names() for path in sorted((GOLDEN / name).iterdir())]


def golden_config(case: str, **fields: Any) -> Any:
    """The config of a golden case with fields replaced; all its stages are selected, if it lets them be chosen."""
    data = json.loads((GOLDEN / case / "config.json").read_text())
    config_class = backbone_class(data["model_type"]).config_class
    unknown = config_class.foreign_keys(data)
    data = {key: value for key, value in data.items() if key not in unknown}
    chosen = any(key in fields for key in _SELECTION)
    if chosen:
        data = {key: value for key, value in data.items() if key not in _SELECTION}
    config = config_class.from_dict({**data, **fields})
    if not chosen and free(config):
        config.out_features = config.stage_names
    return config


def free(config: Any) -> bool:
    """Whether any stages may be selected: not so where a pyramid is made of a fixed number of them."""
    try:
        dataclasses.replace(config, out_features=config.stage_names[:1], out_indices=None, out_strides=None)
    except ValueError:
        return False
    return True


def tiny(name: str, **fields: Any) -> Any:
    """A small backbone, the same weights every time; all its stages are selected unless the fields say otherwise."""
    torch.manual_seed(0)
    return bbframe.AutoBackbone.from_config(tiny_config(name, **fields))


def tiny_config(name: str, **fields: Any) -> Any:
    """The config of the first golden case of an architecture that lets stages be chosen."""
    ours = [case for case in cases() if case.startswith(f"{name}/")]
    return golden_config(next(case for case in ours if free(golden_config(case))), **fields)


def images(net: Any, height: int, width: int, batch: int = 2) -> Tensor:
    """Random images, the same every time."""
    return torch.randn(batch, net.config.num_channels, height, width, generator=torch.Generator().manual_seed(1))


def example(net: Any, batch: int = 2) -> Tensor:
    """Images whose sides are multiples of every stride, wider than high."""
    top = max(stage.stride for stage in net.config.stages)
    return images(net, 2 * top, 3 * top, batch)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value of `b`."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()
