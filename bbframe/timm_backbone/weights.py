"""timm's checkpoints: found by name, converted by timm, loaded strictly by us."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.client import first_line
from bbframe.hub.late_draws import LateDraws
from bbframe.hub.strict_loading import LoadReport, fill, read_tensors, unwrapped
from bbframe.schema import nearest
from bbframe.timm_backbone.timm_network import RESERVED, Names, Network, adapt_grid


def registered(name: str) -> tuple[str, dict[str, Any] | None, dict[str, Any]]:
    """timm's own name of a network, and the `pretrained_cfg` and arguments that a checkpoint's `config.json` states.

    Only a checkpoint that timm's registry lacks is looked up in its folder or on the Hub. Raises ValueError when there
    is no such network.
    """
    import timm

    bare = re.sub(r"^(hf[-_]hub:)?(timm/)?", "", name)
    arch = bare.partition(".")[0]
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    local = name.startswith("local-dir:") or ("/" in name and folder.is_dir())
    if timm.is_model(arch) and not local:
        known = timm.models.get_arch_pretrained_cfgs(arch)
        if bare == arch or bare in known:
            return bare, None, {}
        if bare == name:
            raise ValueError(f"timm_backbone: timm has no weights {name!r}{nearest(name, known)}")
    if local or folder.is_dir():
        place, checkpoint = {"file": str(folder)}, Checkpoint(folder)
    elif "/" in name:
        place = {"hf_hub_id": re.sub(r"^hf[-_]hub:", "", name)}
        checkpoint = hub_checkpoint(place["hf_hub_id"])
    else:
        close = difflib.get_close_matches(arch, timm.list_models(), n=3, cutoff=0)
        better = " or ".join(map(repr, close))
        raise ValueError(f"timm_backbone: backbone={name!r}: timm has no such network; did you mean {better}?")
    data = checkpoint.json("config.json") or {}
    if not timm.is_model(str(data.get("architecture"))):
        beside = shlex.quote(str((checkpoint.path if folder.is_dir() else checkpoint.path.parent) / "config.json"))
        how = (
            f'write it: echo \'{{"architecture": "resnet18"}}\' > {beside}'
            if checkpoint.local and not data
            else "check the name"
        )
        raise ValueError(f"{name}: holds no config.json that names an 'architecture' of timm; {how}")
    elsewhere = {"url", "file", "state_dict", "source", "custom_load", "hf_hub_id", "hf_hub_filename"}
    keys = {field.name for field in fields(timm.models.PretrainedCfg)} - elsewhere
    stated = data.get("pretrained_cfg")
    cfg = {key: v for key, v in {**(stated if isinstance(stated, dict) else {}), **data}.items() if key in keys}
    if cfg.get("num_classes") != 0:  # a classifier is made only to be thrown away, so timm's own size will do
        cfg.pop("num_classes", None)
    arguments = data.get("model_args") or {}
    if not isinstance(arguments, dict) or not isinstance(data.get("pretrained_cfg", {}), dict):
        raise ValueError(f"{name}: config.json: model_args and pretrained_cfg must be mappings")
    if cfg.get("fixed_input_size") and len(cfg.get("input_size") or ()) == 3:
        arguments = {"img_size": list(cfg["input_size"][-2:]), **arguments}  # what timm makes of it, written down
    return data["architecture"], {**cfg, **place}, {k: v for k, v in arguments.items() if k not in RESERVED}


def hub_checkpoint(hub_id: str, revision: str | None = None, **hub_options: Any) -> Checkpoint:
    """The files of `user/model` or `user/model@revision`."""
    source, _, pinned = hub_id.partition("@")
    return Checkpoint(source, revision or pinned or None, **hub_options)


def load_timm_weights(backbone: Any, names: Names, revision: str | None = None, **hub_options: Any) -> LoadReport:
    """Fill a backbone with the weights of timm's `pretrained_cfg`, strictly; ValueError when they do not fit."""
    net: Network = backbone.config.network
    cfg = net.cfg
    if cfg.get("file"):
        checkpoint = Checkpoint(cfg["file"], revision, **hub_options)
    elif cfg.get("hf_hub_id"):
        checkpoint = hub_checkpoint(cfg["hf_hub_id"], revision, **hub_options)
    else:
        raise ValueError(_no_weights(net))
    return fill_from_timm(backbone, names, checkpoint)


def fill_from_timm(backbone: Any, names: Names, checkpoint: Checkpoint) -> LoadReport:
    """Fill a backbone with a checkpoint of timm's, strictly; ValueError when it does not fit."""
    net: Network = backbone.config.network
    tensors, report = read_tensors(checkpoint)
    _, tensors = unwrapped(list(backbone.state_dict(keep_vars=True)), [names], tensors, checkpoint, report)
    report.preprocessing, report.images = "pretrained_cfg", str(backbone.preprocessing)
    given = converted(net, tensors, report.source) if tensors else {}
    table, size = tensors.get("pos_embed"), net.cfg["input_size"][-2:]
    kept = table is not None and "pos_embed" in given and table.shape == given["pos_embed"].shape  # all timm compares
    if kept and (adapted := adapt_grid(net, given["pos_embed"], (size[0], size[1]))):
        given["pos_embed"], report.adapted[names.ours("pos_embed") or ""] = adapted
    fill(backbone, names, given, report)
    for name in report.loaded:
        (theirs,) = names.theirs(name)
        if theirs in tensors and tensors[theirs].shape != given[theirs].shape:
            how = f"resized by timm from {list(tensors[theirs].shape)} to {list(given[theirs].shape)}"
            report.adapted.setdefault(name, how)
    return report


def _no_weights(net: Network) -> str:
    import timm

    message = f"timm_backbone: the Hub has no weights of timm's {net.name}"
    if url := net.cfg.get("url"):
        message += f"; timm names {url}: fetch it, save it with timm as a folder, then give local-dir:FOLDER"
    arch = net.name.partition(".")[0]
    tagged = timm.list_pretrained(f"{arch}.*")
    return message + (f"; choose from: {', '.join(tagged)}" if tagged else "; leave pretrained off")


class _Converted(Exception):
    """Ends timm's construction of a network where its weights would be loaded; holds the converted tensors."""


def converted(net: Network, tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """A checkpoint's tensors as timm converts them for the full network: renamed, positions resized.

    timm keeps its conversions inside `create_model`, which hands their result to `load_state_dict`: a hook takes it
    there. Raises ValueError when a conversion fails.
    """
    import timm

    def take(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
        if not prefix:
            raise _Converted(dict(state_dict))

    def watch(module: nn.Module, name: str, child: nn.Module | None) -> None:
        if type(module) is type(net.full):
            module.register_load_state_dict_pre_hook(take)

    options = {key: value for key, value in net.options.items() if key != "in_chans"}  # the stem is adapted later
    overlay = {"source": None, "state_dict": tensors}
    hook = register_module_module_registration_hook(watch)
    try:
        with LateDraws() as draws:
            try:
                timm.create_model(net.name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
            finally:
                draws.pending.clear()  # the network is thrown away
    except _Converted as found:
        given: dict[str, Tensor] = found.args[0]
        return given
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{source}: not a checkpoint of {net.name}, timm cannot convert it ({reason})") from error
    finally:
        hook.remove()
    raise AssertionError("timm loads what it converts")
