"""What a `config.json` tells one architecture: the fields that it states, and the names of the weights beside it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from bbframe.config import SELECTION, BackboneConfigMixin
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.keymap import Host, KeyMap
from bbframe.registry import backbone_name
from bbframe.schema import checked_value, type_hints

# the fields that tables of positions, offsets and windows belong to
_SIZES = ("image_size", "pretrain_image_size", "patch_size", "window_size", "pretrained_window_sizes", "model_args")


class StatedConfig(NamedTuple):
    """The fields that a `config.json` states, under our names, and its keys that no field knows.

    `label` names the file in errors. `keys` is the key table of the weights of a bigger model, and `settles` are the
    fields that these fix; both are None for the backbone's own checkpoint.
    """

    label: str
    config_class: type[BackboneConfigMixin]
    fields: dict[str, Any]
    unknown: list[str]
    keys: KeyMap | None
    settles: frozenset[str] | None

    def config(self, options: Mapping[str, Any]) -> BackboneConfigMixin:
        """The config with `options` in place of the file's values; a selection among them replaces the file's.

        Raises ValueError, which names the file when its own values are at fault.
        """
        fields = dict(self.fields)
        if any(options.get(key) is not None for key in SELECTION):
            fields = {key: value for key, value in fields.items() if key not in SELECTION}
        fields.update({key: value for key, value in options.items() if value is not None or key not in SELECTION})
        try:
            return self.config_class.from_dict(fields)
        except ValueError:
            try:
                self.config_class.from_dict(self.fields)
            except ValueError as error:
                raise ValueError(f"{self.label}: {error}") from error
            raise

    def made_with(self, config: BackboneConfigMixin) -> BackboneConfigMixin:
        """A config with the sizes that the file states, or leaves at their defaults, in place of its own."""
        made_with, hints = copy.deepcopy(config), type_hints(self.config_class)
        for field in dataclasses.fields(self.config_class):
            if field.name in _SIZES:
                default = {} if field.default is dataclasses.MISSING else field.default
                value = self.fields.get(field.name, default)
                where = f"{self.label}: {self.config_class.model_type}: {field.name}"
                setattr(made_with, field.name, checked_value(value, hints[field.name], where))
        return made_with


def stated_beside(files: Checkpoint, backbone: Any) -> StatedConfig | None:
    """What the `config.json` beside weights states, when it can be had and is of a class of backbones."""
    try:
        return stated_config(f"{files.source}: config.json", files.config, backbone) if files.config else None
    except ValueError:  # the caller has given a config, which counts
        return None


def stated_config(label: str, data: Mapping[str, Any], backbone: Any) -> StatedConfig:
    """Read the data of a `config.json` for a class of backbones: its own file, or the file of one of its `hosts`.

    Raises ValueError, after `label`, for the config of another architecture.
    """
    config_class: type[BackboneConfigMixin] = backbone.config_class
    name, own = str(data.get("model_type")), config_class.model_type
    host: Host | None = backbone.hosts.get(name)
    if host is None and backbone_name(name) != backbone_name(own):
        raise ValueError(
            f"{label}: a checkpoint of {name!r}, not of {own!r}; choose the backbone that the checkpoint was made with"
        )
    try:
        stated = host.config(data) if host else config_class.settled(data)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
    if stated is None:
        raise ValueError(f"{label}: {name} holds another backbone than {own}; choose a checkpoint that holds {own}")
    unknown = config_class.foreign_keys(stated)
    fields = config_class.unaliased({key: value for key, value in stated.items() if key not in unknown})
    keys, settles = (host.keys, frozenset(fields)) if host else (None, None)
    return StatedConfig(label, config_class, fields, unknown, keys, settles)


def plain_config(config: Any) -> dict[str, Any]:
    """The data of a config: a mapping, or any library's object with `to_dict()`; ValueError for anything else."""
    data = config if isinstance(config, Mapping) else config.to_dict() if hasattr(config, "to_dict") else None
    if not isinstance(data, Mapping):
        raise ValueError(f"config={config!r} must be a config, or a mapping with a model_type")
    return dict(data)
