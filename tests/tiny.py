"""Small backbones for the tests: every architecture that there is, in the sizes of its golden cases."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random
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


def nothing_random(name: str) -> dict[str, Any]:
    """Fields that take the randomness out of training: rates of what is dropped, and stretched coordinates."""
    fields = tiny_config(name).field_names()
    rates = {field: 0.0 for field in fields if field.endswith(("dropout_prob", "drop_path_rate", "attention_dropout"))}
    return rates | {field: None for field in fields if field.startswith("pos_embed_")}


def variants(name: str, count: int) -> list[Any]:
    """Configs of an architecture that no golden case has, the same every time: fields changed at random, three each.

    Changes that the config refuses are left out; all stages are selected.
    """
    golden = [golden_config(case) for case in cases() if case.startswith(f"{name}/")]
    starts = [config for config in golden if free(config)]
    fields = [name for name in starts[0].field_names() if name != "initializer_range"]
    found: list[Any] = []
    for seed in range(count):
        random = Random(f"{name} {seed}")
        config = dataclasses.replace(starts[seed % len(starts)], **dict.fromkeys(_SELECTION))
        for field in random.sample(fields, len(fields)):
            choices = {getattr(other, field) for other in golden} | _near(field, getattr(config, field))
            value = random.choice(sorted(choices, key=repr))
            try:
                config = dataclasses.replace(config, **dict.fromkeys(_SELECTION), **{field: value})
            except ValueError:
                continue
            differing = [f for f in fields if getattr(config, f) != getattr(starts[seed % len(starts)], f)]
            if len(differing) == 3:
                break
        config.out_features = config.stage_names
        found.append(config)
    return found


def _near(field: str, value: Any) -> set[Any]:
    """Other values of a field."""
    if isinstance(value, bool):
        return {not value}
    if isinstance(value, int):
        return {value + 1, 2 * value, max(1, value // 2)}
    if isinstance(value, float):
        return {0.0, 0.1} if field.endswith(("_prob", "_rate")) else {2 * value, value / 2}
    if isinstance(value, tuple) and value and all(type(item) is int for item in value):
        return {value[::-1], (*value[:-1], value[-1] + 1), (2 * value[0], *value[1:])}
    return {"relu", "silu"} if field == "hidden_act" else set()


def shaken(net: Any) -> Any:
    """The same backbone with random weights, statistics and tables, so that no two of them are alike; in eval mode."""
    generator = torch.Generator().manual_seed(2)
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator).mul_(0.2)
            scale = value.ndim == 1 and key.endswith((".weight", ".running_var"))
            value.copy_(noise.abs_() + 0.5 if scale else noise)
    return net.eval()


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
