"""The same network in each library: ours, and those of transformers and timm with its weights.

Ours goes to transformers by the folder that it saves. timm's gets the same tensors by the table of names of the case;
nothing of either side may be left over. Whether both worked is seen in the maps. Both peers choose torch's fused
attention by themselves where they have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbframe import AutoBackbone
from bbframe.factory import check_backbone
from bbframe.files import read_yaml
from benchmarks.cases import Case, timm_keys

CONF = Path(__file__).resolve().parents[1] / "conf" / "backbone"
# ours that timm's network has not: norms of maps (put behind it), norms of classifiers, tokens of pretraining
_BESIDES = ("norms.", "norm.", "stem.mask_token")


def backbone_options(choice: str) -> dict[str, Any]:
    """The data of conf/backbone/<choice>.yaml, on top of the files that its defaults list names, as Hydra has it."""
    data = read_yaml(CONF / f"{choice}.yaml", dict)
    named = data.pop("defaults", ["_self_"])
    layers = [data if name == "_self_" else backbone_options(name) for name in named]
    return {key: value for layer in layers for key, value in layer.items()}


def config(case: Case, options: Mapping[str, Any]) -> Any:
    """Our config in the standard size, from the data of its file: nothing is dropped in training."""
    changed = {"out_indices": list(case.indices), **case.options}
    changed |= {"drop_path_rate": 0.0} if "drop_path_rate" in options else {}
    return check_backbone({**options, **changed}).config


def ours(case: Case, options: Mapping[str, Any]) -> nn.Module:
    """Ours with random weights, where initialisation puts constants too: a wrong place would show."""
    torch.manual_seed(0)
    net = AutoBackbone.from_config(config(case, options))
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.is_floating_point() and value.numel() > 1 and (value == value.flatten()[0]).all():
                value += 0.02 * (torch.rand_like(value) if name.endswith("running_var") else torch.randn_like(value))
    return net


def from_folder(library: str, folder: Path, indices: Sequence[int] | None = None) -> nn.Module:
    """The backbone of bbframe or transformers that a folder saved by bbframe describes, with maps of these stages."""
    selection: dict[str, Any] = {}
    if indices is not None:
        selection = {"out_features": [f"stage{index}" for index in indices], "out_indices": list(indices)}
    if library == "bbframe":
        return AutoBackbone.from_pretrained(folder, **selection)
    import transformers

    architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    net = getattr(transformers, architecture).from_pretrained(folder, **selection)
    return _in_units(net) if architecture == "HieraBackbone" else net


def _in_units(net: Any) -> Any:
    """transformers' HieraBackbone with the order of tokens that its HieraModel has, and it forgets."""
    from transformers.models.hiera.modeling_hiera import unroll

    schedule = [net.config.query_stride] * (len(net.config.depths) - 1)

    def reorder(_: Any, inputs: Any, embedded: Any) -> Any:
        tokens = unroll(embedded[0], inputs[0].shape[2:], net.config.patch_stride, schedule)
        return (tokens, *embedded[1:])

    net.embeddings.register_forward_hook(reorder)
    return net


def fresh(library: str, case: Case, options: Mapping[str, Any]) -> nn.Module:
    """The backbone with whatever weights its library gives it at first."""
    if library == "bbframe":
        return AutoBackbone.from_config(config(case, options))
    if library == "timm":
        with torch.device("meta"):
            like = AutoBackbone.from_config(config(case, options))
        return from_timm(case, like)
    import transformers

    stated = transformers.AutoConfig.for_model(**config(case, options).to_dict())
    return transformers.AutoBackbone.from_config(stated)


class Intermediates(nn.Module):
    """The maps of blocks of timm's plain transformers, each behind the last norm."""

    def __init__(self, model: Any, indices: list[int]):
        super().__init__()
        self.model, self.indices = model, model.prune_intermediate_layers(indices, prune_norm=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(x, indices=self.indices, norm=True, intermediates_only=True)


class TimmMaps(nn.Module):
    """timm's network with the norms that the other libraries put behind their maps; its permutations are views."""

    def __init__(self, network: nn.Module, like: Any):
        super().__init__()
        self.network = network
        norms = [like.norms[name] for name in like.out_features] if hasattr(like, "norms") else []
        self.norms = nn.ModuleList(nn.LayerNorm(norm.normalized_shape, norm.eps) for norm in norms)
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = list(self.network(x))
        if self.norms:
            last = maps if self.channels_last else [x.permute(0, 2, 3, 1) for x in maps]
            return [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, last, strict=True)]
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_last else maps


def from_timm(case: Case, like: Any) -> nn.Module:
    """timm's features of a case with the maps that our backbone gives, and its weights.

    Raises ValueError when a tensor has no counterpart.
    """
    import timm

    assert case.timm is not None
    indices = [index + case.shift for index in like.out_indices]
    made: dict[str, Any] = {"num_classes": 0, "drop_path_rate": 0.0, **case.timm_options}
    with torch.device("meta"):
        full = list(timm.create_model(case.timm, **made).state_dict())
    if like.config.model_type == "dinov2":  # whose maps all pass the last norm
        features = Intermediates(timm.create_model(case.timm, **made), indices)
    else:
        features = timm.create_model(case.timm, features_only=True, out_indices=indices, **made)
    net = TimmMaps(features, like)
    _fill(features, {name.replace(".", "_"): name for name in full}, like.state_dict(), case)
    for norm, name in zip(net.norms, like.out_features if net.norms else (), strict=True):
        _copy(norm.state_dict(), like.norms[name].state_dict())
    if case.eps is not None:
        for module in features.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = case.eps
    return net


def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy tensors by their names and in their order of elements, but for those that are meta and hold nothing."""
    with torch.no_grad():
        for name, value in values.items():
            if not value.is_meta:
                into[name].copy_(value.view(into[name].shape))


def _fill(features: nn.Module, full: Mapping[str, str], weights: Mapping[str, Tensor], case: Case) -> None:
    """Copy ours into timm's features, whose names are those of its full network with other dots."""
    keys, found = timm_keys(case), {}
    for name in features.state_dict():
        theirs = full[name.removeprefix("model.").replace(".", "_")]
        ours = keys.ours(theirs)
        if ours not in weights:
            raise ValueError(f"timm's {theirs} has no counterpart in ours")
        found[name] = ours
    used = set(found.values())
    left = [name for name in weights if name not in used and not name.startswith(_BESIDES)]
    if left:
        raise ValueError(f"timm's {case.timm} has no place for ours: {', '.join(left)}")
    _copy(features.state_dict(), {name: weights[ours] for name, ours in found.items()})
