"""The registry of architectures and `AutoBackbone`: plain data or a checkpoint -> config -> module -> weights."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

import bbframe.models
from bbframe.backbone import BackboneConfigMixin, BackboneMixin
from bbframe.fast import convert, follow_device
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.loading import (
    LoadReport,
    adapt_input_channels,
    hub_tensors,
    load_weights,
    read_preprocessing,
    save_checkpoint,
)
from bbframe.keymap import Host, KeyMap
from bbframe.layers.initialise import LateDraws
from bbframe.schema import nearest

B = TypeVar("B", bound="Backbone")
_registered: dict[str, type[Backbone]] = {}


class Backbone(BackboneMixin, nn.Module):
    """Base of the native backbones: the contract, with weights from and to the Hub's layout through `keys`."""

    keys: ClassVar[KeyMap]
    hosts: ClassVar[Mapping[str, Host]] = {}  # by model_type: bigger models whose checkpoints hold this backbone
    adaptable: ClassVar[frozenset[str]] = frozenset()  # fields whose change `adapt_weight` makes up for
    load_report: LoadReport | None = None

    def _apply(self: B, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> B:
        super()._apply(fn, recurse)
        follow_device(self)
        return self

    @classmethod
    def from_pretrained(cls: type[B], checkpoint: str | os.PathLike[str], **options: Any) -> B:
        """`AutoBackbone.from_pretrained` that refuses the checkpoint of another architecture by ValueError."""
        net = AutoBackbone.from_pretrained(checkpoint, expect=cls, **options)
        if not isinstance(net, cls):
            raise ValueError(f"{checkpoint}: makes a {type(net).__name__}, not a {cls.__name__}; use AutoBackbone")
        return net

    def adapt_weight(self, name: str, weight: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
        """A checkpoint's weight made to fit `shape`, and how; None when that must not be done."""
        if name.startswith("stem.") and weight.ndim == 4 and len(shape) == 4:
            same = weight.shape[0] == shape[0] and weight.shape[2:] == shape[2:]
            if same and shape[1] == self.config.num_channels:
                return adapt_input_channels(weight, shape[1]), f"{weight.shape[1]} input channels to {shape[1]}"
        return None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder in the Hub's layout: the config, the preprocessing, the weights of all built stages."""
        config = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        save_checkpoint(folder, config, self.preprocessing, hub_tensors(self, self.keys))


def register(backbone: type[B]) -> type[B]:
    """Make an architecture known under its config's `model_type`; a class decorator, for one's own as for ours.

    Raises ValueError when the name is taken by another class.
    """
    name = backbone.config_class.model_type
    taken = _registered.get(name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (backbone.__module__, backbone.__qualname__):
        raise ValueError(f"model_type {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another")
    _registered[name] = backbone
    return backbone


@cache
def _model_files() -> dict[str, str]:
    """The module of every architecture by its file's name."""
    ours = {info.name: f"bbframe.models.{info.name}" for info in pkgutil.iter_modules(bbframe.models.__path__)}
    return {**ours, "timm": "bbframe.timm_backbone.backbone"}


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Architectures of installed packages: entry points in the group `bbframe.backbones`, named by model_type."""
    return {_file_name(point.name): point for point in importlib.metadata.entry_points(group="bbframe.backbones")}


def list_backbones() -> list[str]:
    """The `model_type` of every architecture: ours, registered ones, and those of installed packages."""
    return sorted({*_model_files(), *map(_file_name, _registered), *_entry_points()})


def _file_name(model_type: str) -> str:
    return model_type.replace("-", "_").removesuffix("_backbone")


def backbone_class(model_type: str) -> type[Backbone]:
    """The class of an architecture, imported when it is first asked for; ValueError for an unknown one."""
    file = _file_name(model_type)
    if model_type not in _registered:
        if file in _model_files():
            importlib.import_module(_model_files()[file])
        elif file in (points := _entry_points()):
            register(points[file].load())
    by_file = {_file_name(name): backbone for name, backbone in _registered.items()}
    if file not in by_file:
        raise ValueError(f"no backbone {model_type!r}{nearest(model_type, list_backbones())}")
    return by_file[file]


class AutoBackbone:
    """Makes any backbone from its config or from a checkpoint."""

    def __new__(cls) -> AutoBackbone:
        raise TypeError("AutoBackbone is not instantiated; use from_config or from_pretrained")

    @staticmethod
    def from_config(config: BackboneConfigMixin | Mapping[str, Any], *, fast: bool = True) -> Backbone:
        """A freshly initialised backbone from a config, or from a mapping with a `model_type`.

        `fast` lets `bbframe.fast.convert` swap its arithmetic for a faster one on a CPU.
        """
        if isinstance(config, Mapping):
            config = config_from_dict(config)
        with LateDraws():
            net = backbone_class(config.model_type)(config)
        return convert(net) if fast else net

    @staticmethod
    def from_pretrained(
        checkpoint: str | os.PathLike[str],
        *,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        revision: str | None = None,
        config: BackboneConfigMixin | Mapping[str, Any] | None = None,
        use_timm_backbone: bool = False,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
        expect: type[Backbone] | None = None,
        fast: bool = True,
        **fields: Any,
    ) -> Backbone:
        """A backbone with a checkpoint's weights, config and preprocessing; its `load_report` says what was loaded.

        `checkpoint` is an id on the Hub, a folder, or a weights file (with its `config.json` beside it, or `config`
        given); with `use_timm_backbone=True`, or as "timm/...", the name of a timm model. `fields` replace those of
        the checkpoint's config, such as `drop_path_rate=0.1` or `num_channels=1`. `sha256` is what the weights file
        must have, or what each must have by its name; `fast` is that of `from_config`. Raises ValueError for whatever
        does not fit.
        """
        selection = {"out_features": out_features, "out_indices": out_indices, "out_strides": out_strides}
        hub: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        hub["sha256"] = sha256
        if use_timm_backbone or str(checkpoint).startswith(("timm/", "hf-hub:", "hf_hub:", "local-dir:")):
            if config is not None:
                raise ValueError(f"{checkpoint}: timm's name brings its config; give single fields instead of config")
            timm = backbone_class("timm_backbone")
            return timm.from_pretrained(checkpoint, revision=revision, **hub, **{**selection, **fields})
        files = Checkpoint(checkpoint, revision, **hub)
        data = files.json("config.json") if config is None else None
        unknown: list[str] = []
        if config is not None:
            given = config.to_dict() if isinstance(config, BackboneConfigMixin) else config
            config = config_from_dict(_replaced(given, selection, fields))
            backbone = backbone_class(config.model_type)
        elif data is not None:
            backbone, stated, unknown = stated_config(files.source, data, expect)
            config = backbone.config_class.from_dict(_replaced(stated, selection, fields))
        else:
            raise ValueError(f"{files.source}: no config.json there; put it beside the weights, or pass config=")
        with LateDraws():  # of what the checkpoint lacks alone
            net = backbone(config)
            net.load_report = load_weights(net, _tables(backbone, data), files)
        net.load_report.unknown_config = unknown
        preprocessing = read_preprocessing(files)
        if preprocessing is not None:
            net.preprocessing, net.load_report.preprocessing = preprocessing, "preprocessor_config.json"
        return (convert(net) if fast else net).eval()


def config_from_dict(data: Mapping[str, Any]) -> BackboneConfigMixin:
    """The config that a mapping with a `model_type` describes; ValueError names what is wrong and the nearest fix."""
    if "model_type" not in data:
        raise ValueError(f"a backbone's config must have a model_type{nearest('', list_backbones())}")
    return backbone_class(str(data["model_type"])).config_class.from_dict(data)


def _replaced(data: Mapping[str, Any], selection: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A config's data with fields replaced, and with its selection replaced as a whole when another is given."""
    data = dict(data)
    if any(value is not None for value in selection.values()):
        data = {key: value for key, value in data.items() if key not in selection}
        data.update({key: value for key, value in selection.items() if value is not None})
    return {**data, **fields}


def stated_config(
    source: str, data: Mapping[str, Any], expect: type[Backbone] | None
) -> tuple[type[Backbone], dict[str, Any], list[str]]:
    """The class that a `config.json` is for, the fields that it states, and those of its keys that no field knows."""
    if "model_type" not in data:
        raise ValueError(f"{source}: its config.json has no model_type{nearest('', list_backbones())}")
    name = str(data["model_type"])
    try:
        backbone = _holder(name, data, expect)
        stated = backbone.hosts[name].config(data) if name in backbone.hosts else dict(data)
        assert stated is not None
        unknown = backbone.config_class.foreign_keys(stated)
        field = backbone.config_class.attribute_map
        stated = {field.get(key, key): value for key, value in stated.items() if key not in unknown}
        backbone.config_class.from_dict(stated)
    except ValueError as error:
        raise ValueError(f"{source}: config.json: {error}") from error
    if expect is not None and backbone.config_class is not expect.config_class:
        raise ValueError(
            f"{source}: a checkpoint of {name!r}, not of {expect.config_class.model_type!r}; "
            "choose the backbone that the checkpoint was made with"
        )
    return backbone, stated, unknown


def _holder(name: str, data: Mapping[str, Any], expect: type[Backbone] | None) -> type[Backbone]:
    """The class of an architecture, or that of the backbone inside of a bigger model; ValueError when unclear."""
    if expect is None or name not in expect.hosts:
        try:
            return backbone_class(name)
        except ValueError:
            hosted = [backbone for backbone in map(backbone_class, list_backbones()) if name in backbone.hosts]
            if not hosted:
                raise
    else:
        hosted = [expect]
    inside = [backbone for backbone in hosted if backbone.hosts[name].config(data) is not None]
    if len(inside) == 1:
        return inside[0]
    classes = " or ".join(backbone.__name__ for backbone in inside or hosted)
    if inside:
        raise ValueError(f"{name} may become several backbones; load it by the from_pretrained of {classes}")
    raise ValueError(f"{name} with another backbone inside than {classes}; choose a checkpoint with one of these")


def _tables(backbone: type[Backbone], data: Mapping[str, Any] | None) -> list[KeyMap]:
    """The key tables that a checkpoint may be written by: one when its `config.json` is known."""
    hosts = backbone.hosts
    if data is None:
        return [backbone.keys, *(host.keys for host in hosts.values())]
    name = str(data.get("model_type"))
    return [hosts[name].keys if name in hosts else backbone.keys]
