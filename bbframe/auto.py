"""`AutoBackbone`: any backbone, found by its name, from a config or from a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bbframe import registry
from bbframe.backbone import Backbone, checked_dtype, one_dtype, refuse_attention
from bbframe.backbone_mixin import BackboneType
from bbframe.config import SELECTION, BackboneConfigMixin
from bbframe.fast import convert
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.foreign_arguments import without_foreign
from bbframe.hub.late_draws import LateDraws
from bbframe.hub.state_dict import StateDict
from bbframe.hub.stated_config import plain_config, stated_config
from bbframe.schema import nearest, printable


def list_backbones() -> list[str]:
    """The names of all architectures: ours, registered ones, and those of installed packages."""
    return registry.names("backbone")


def backbone_class(model_type: str) -> type[Backbone]:
    """The class of an architecture, imported when it is first asked for; ValueError for an unknown one."""
    backbone: type[Backbone] = registry.find("backbone", model_type).load()
    return backbone


class AutoBackbone:
    """Makes any backbone from its config or from a checkpoint."""

    def __new__(cls) -> AutoBackbone:
        raise TypeError("AutoBackbone is not instantiated; use from_config or from_pretrained")

    @staticmethod
    def from_config(
        config: Any,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        fast: bool = True,
        **fields: Any,
    ) -> Backbone:
        """A freshly initialised backbone from a config.

        `config` is a config of bbframe, a mapping with a `model_type`, or another library's config object, which has
        a `model_type` and `to_dict()`; when that describes a bigger model, its `backbone_config` counts. `fields`,
        such as `out_indices=[1, 3]`, replace those of the config. The weights get `dtype` (or `torch_dtype`). `fast`
        allows `bbframe.fast.convert`. Raises ValueError for an unknown architecture, for a wrong field, for an
        argument that cannot be honoured, and for more weights than this machine's memory holds.
        """
        refuse_attention(attn_implementation)
        asked = one_dtype(dtype, torch_dtype)
        cast = None if asked == "auto" else checked_dtype(asked)
        fields = without_foreign("from_config", fields)
        if isinstance(config, Mapping):
            config = config_from_dict(_changed(config, fields))
        elif isinstance(config, BackboneConfigMixin) and fields:
            config = config_from_dict(_changed(config.to_dict(), fields))
        elif not isinstance(config, BackboneConfigMixin):
            label, config = type(config).__name__, _backbone_part(config)
            cast = cast or checked_dtype(getattr(config, "dtype", None))
            data = plain_config(config)
            config = stated_config(label, data, _class_for(label, data)).config(fields)
        refuse_too_large(config)
        with LateDraws():
            net = backbone_class(config.model_type)(config)
        return ready(net if cast is None else net.to(cast), fast)

    @staticmethod
    def from_pretrained(
        checkpoint: str | os.PathLike[str],
        *,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        config: Any = None,
        use_timm_backbone: bool = False,
        revision: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
        fast: bool = True,
        **options: Any,
    ) -> Backbone:
        """A backbone with a checkpoint's weights, config and preprocessing; its `load_report` says what was loaded.

        `checkpoint` is an id on the Hub, a folder, or a weights file (with its `config.json` beside it, or `config`
        given); with `use_timm_backbone=True`, or as "timm/...", the name of a timm model. `config` and `fast` are
        those of `from_config`. `sha256` is the digest that the weights file must have, or each file's by its name.
        `options` are `dtype` (or `torch_dtype`; "auto" is the checkpoint's), and fields that replace those of the
        checkpoint's config, such as `drop_path_rate=0.1` or `num_channels=1`. Raises ValueError for anything that
        does not fit, and for an argument of transformers that cannot be honoured.
        """
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise ValueError(f"checkpoint={checkpoint!r:.60} must be an id on the Hub, a folder or a weights file")
        if options.get("subfolder") and os.path.isdir(inside := os.path.join(checkpoint, options["subfolder"])):
            checkpoint = inside
            del options["subfolder"]
        options = without_foreign(f"{checkpoint}", options)
        options.update(out_features=out_features, out_indices=out_indices, out_strides=out_strides)
        local = os.path.exists(os.path.expanduser(checkpoint))
        revision = None if local and revision == "main" else revision  # as good as none
        hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        hub.update(token=token, sha256=sha256)
        files = Checkpoint(checkpoint, **hub) if local else None
        theirs = files is not None and files.path.is_dir() and config is None and _is_timms(files.config or {})
        by_name = files is None and str(checkpoint).startswith(("timm/", "hf-hub:", "hf_hub:", "local-dir:"))
        if use_timm_backbone or theirs or by_name:
            if config is not None:
                raise ValueError(f"{checkpoint}: timm's name brings its config; give single fields instead of config")
            return ready(backbone_class("timm_backbone").from_pretrained(checkpoint, **hub, **options), fast)
        files = files or Checkpoint(checkpoint, **hub)
        if config is None:
            backbone = _class_for(f"{files.source}: config.json", files.needed_config())
        else:
            config = _backbone_part(config)
            backbone = _class_for("config", plain_config(config))
        return ready(backbone.from_pretrained(files, config=config, **options), fast)

    @staticmethod
    def from_state_dict(
        config: Any,
        state: Mapping[str, Any] | torch.nn.Module,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        fast: bool = True,
        **fields: Any,
    ) -> Backbone:
        """A backbone with weights that are in memory, in eval mode; its `load_report` says what was loaded.

        `state` maps names to tensors, those of transformers, of timm or of the authors, with or without a classifier;
        a module stands for its own. `config` is as in `from_config`, or timm's name of the network, as
        "timm/resnet50". `dtype`, `fast` and `fields`, such as `out_indices=[1, 3]`, are those of `from_config`. The
        preprocessing is timm's for its networks, else ImageNet's: set `net.preprocessing` where it is another. Raises
        one ValueError that lists all that is missing, unexpected or misshapen.
        """
        cast = checked_dtype(one_dtype(dtype, torch_dtype))
        fields = without_foreign("from_state_dict", fields)
        if isinstance(config, str):
            if not config.startswith(("timm/", "hf-hub:", "hf_hub:")):
                raise ValueError(
                    f"config={config!r} must be a config, a mapping with a model_type or timm's name of a network: "
                    f"'timm/{config}'; a folder or an id on the Hub is for from_pretrained"
                )
            config = {"model_type": "timm_backbone", "backbone": config}
        plain = plain_config(_backbone_part(config))
        backbone = _class_for("config", plain)
        backbone.config_class.refuse_unknown(fields)
        stated = stated_config("config", plain, backbone)
        net = backbone.from_state(StateDict(state, plain), stated.config(fields), stated)
        return ready(net if cast is None else net.to(cast), fast)


def _changed(data: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a config with other fields; another selection takes the place of the one that is there."""
    chosen = any(fields.get(key) is not None for key in SELECTION)
    return {**{k: value for k, value in data.items() if not (chosen and k.removeprefix("_") in SELECTION)}, **fields}


def config_from_dict(data: Mapping[str, Any]) -> BackboneConfigMixin:
    """The config that a mapping with a `model_type` describes; ValueError names what is wrong and the nearest fix."""
    if "model_type" not in data:
        raise ValueError(f"a backbone's config must have a model_type{nearest('', list_backbones())}")
    return backbone_class(str(data["model_type"])).config_class.from_dict(data)


def _backbone_part(config: Any) -> Any:
    """A config, or the `backbone_config` inside it when it is an object that describes a bigger model."""
    while not isinstance(config, (Mapping, BackboneConfigMixin)):
        inner = getattr(config, "backbone_config", None)
        name = registry.backbone_name(str(getattr(config, "model_type", None)))
        if inner is None or name in list_backbones():
            break
        config = inner
    return config


def _class_for(label: str, data: Mapping[str, Any]) -> type[Backbone]:
    """The class that the data of a `config.json` is for: an architecture, or the one inside a bigger model.

    Raises ValueError, after `label`, when there is none, or more than one.
    """
    if "model_type" not in data:
        raise ValueError(f"{label}: has no model_type{nearest('', list_backbones())}")
    name = str(data["model_type"])
    try:
        return backbone_class(name)
    except ValueError as error:
        hosted = [backbone for backbone in map(backbone_class, list_backbones()) if name in backbone.hosts]
        if not hosted:
            raise ValueError(f"{label}: {error}") from error
    inside = [backbone for backbone in hosted if backbone.hosts[name].config(data) is not None]
    if len(inside) == 1:
        return inside[0]
    classes = " or ".join(backbone.__name__ for backbone in inside or hosted)
    if inside:
        raise ValueError(f"{label}: {name} may become several backbones; load it by the from_pretrained of {classes}")
    raise ValueError(f"{label}: {name} holds another backbone than {classes}; choose a checkpoint that holds one")


def _is_timms(data: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is one that timm wrote."""
    return "model_type" not in data and "architecture" in data


def ready(net: Backbone, fast: bool) -> Backbone:
    """The network as a caller gets it: with faster arithmetic where `fast` allows it."""
    return convert(net) if fast and net.backbone_type is BackboneType.TRANSFORMERS else net


def refuse_too_large(config: BackboneConfigMixin, copies: int = 1) -> None:
    """Raise ValueError if the memory here cannot hold `copies` of a backbone's weights; none of it is touched.

    A training on a CPU needs four: weights, gradients and AdamW's two moments.
    """
    if torch.get_default_device().type == "meta" or getattr(config, "use_pretrained_backbone", False):
        return
    try:
        with torch.random.fork_rng(devices=[]), LateDraws(), torch.device("meta"):
            net = backbone_class(config.model_type)(config)
        size: float = sum(tensor.nbytes for tensor in [*net.parameters(), *net.buffers()])
    except (
        RuntimeError
    ) as error:  # too large even to be counted, or a plugin's backbone that reads values as it is made
        size = math.inf if "overflow" in str(error) else 0
    if size * copies > (memory := machine_memory()):
        fields = [f for f in dataclasses.fields(config) if f.init and getattr(config, f.name) != f.default]
        given = ", ".join(f"{f.name}={printable(getattr(config, f.name))}" for f in fields) or "its defaults"
        times = f", {copies} times in training," if copies > 1 else ""
        raise ValueError(
            f"{config.model_type}: {given} make weights of {size / 2**30:.3g} GiB, which{times} exceed "
            f"the {memory / 2**30:.3g} GiB of memory here; choose fewer blocks or channels, or a smaller image_size"
        )


def machine_memory() -> float:
    """The bytes of memory that this machine, or the container that the process runs in, has; inf if unknown."""
    limits = [math.inf]
    with suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)
