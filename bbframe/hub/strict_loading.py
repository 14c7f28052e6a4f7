"""Weights into a backbone, strictly and with a report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from bbframe.hub.checkpoint_files import Checkpoint, file_tensors
from bbframe.keymap import KeyMap
from bbframe.preprocessing import Preprocessing


@dataclass
class LoadReport:
    """What became of every tensor of a checkpoint and of the module; names are the module's, or as commented."""

    source: str
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)  # of each weights file
    preprocessing: str = "default"  # the file that it came from
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)  # name: how
    fresh: list[str] = field(default_factory=list)  # initial values; a checkpoint may lack these
    not_built: list[str] = field(default_factory=list)  # names on disk, of stages after the last selected one
    ignored: list[str] = field(default_factory=list)  # names on disk that belong to no backbone
    unknown_config: list[str] = field(default_factory=list)  # keys of its config.json that no field knows

    def __str__(self) -> str:
        counts = [f"{len(self.loaded)} tensors loaded"]
        for label in ("adapted", "fresh", "not built", "ignored"):
            count = len(getattr(self, label.replace(" ", "_")))
            counts += [f"{count} {label}"] if count else []
        lines = [f"{self.source}{f' at {self.revision[:12]}' if self.revision else ''}: {', '.join(counts)}"]
        lines += [f"  adapted {name}: {how}" for name, how in self.adapted.items()]
        if self.unknown_config:
            lines.append(f"  config.json keys without a meaning here: {', '.join(self.unknown_config)}")
        return "\n".join(lines)


def read_preprocessing(checkpoint: Checkpoint) -> Preprocessing | None:
    """What a checkpoint's `preprocessor_config.json` says; None without one."""
    data = checkpoint.json("preprocessor_config.json")
    try:
        return None if data is None else Preprocessing.from_hub(data)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{checkpoint.source}: preprocessor_config.json cannot be read ({error!r})") from error


def load_weights(module: Any, tables: Sequence[KeyMap], checkpoint: Checkpoint) -> LoadReport:
    """`fill` a backbone from a checkpoint by the one of these tables that knows most of its names."""
    tensors, report = read_tensors(checkpoint)

    def known(keys: KeyMap) -> int:
        return len({part for name in module.state_dict() for part in keys.theirs(name)} & set(keys.strip(tensors)))

    fill(module, max(tables, key=known) if len(tables) > 1 else tables[0], tensors, report)
    return report


def read_tensors(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], LoadReport]:
    """All tensors of a checkpoint, and the beginning of its report."""
    files = checkpoint.weight_files()
    report = LoadReport(checkpoint.source, checkpoint.revision, {path.name: checkpoint.digest(path) for path in files})
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors.update(file_tensors(path))
    return tensors, report


def fill(module: Any, keys: KeyMap, tensors: Mapping[str, Tensor], report: LoadReport) -> None:
    """Copy a checkpoint's tensors into a backbone and account for every tensor on either side.

    Tensors of another shape may be adapted by `module.adapt_weight(name, tensor, shape)`. Raises one ValueError that
    lists all that is missing, unexpected and misshapen; the module is unchanged then.
    """
    whole = cache(partial(_whole_names, module))
    try:
        on_disk = _modern(keys.strip(tensors), keys, whole)
    except ValueError as error:
        raise ValueError(f"{report.source}: {error}") from error
    own = module.state_dict(keep_vars=True)
    missing, misshapen, filled = [], [], {}
    used: set[str] = set()
    for name, target in own.items():
        parts = keys.theirs(name)
        absent = [part for part in parts if part not in on_disk]
        used.update(parts)
        if absent:
            if all(map(keys.may_lack, absent)):
                report.fresh.append(name)
            else:
                missing.extend(absent)
            continue
        loaded = [tensors[on_disk[part]] for part in parts]
        if any(part.shape != loaded[0].shape for part in loaded):
            shapes = ", ".join(str(list(part.shape)) for part in loaded)
            misshapen.append(f"{', '.join(parts)}: {shapes} instead of equal ones")
            continue
        value = loaded[0] if len(loaded) == 1 else torch.cat(loaded)
        if value.shape != target.shape:
            adapted = module.adapt_weight(name, value, target.shape)
            if adapted is None:
                misshapen.append(f"{parts[0]} {list(value.shape)} instead of {list(target.shape)}")
                continue
            value, report.adapted[name] = adapted
        filled[name] = value
        report.loaded.append(name)
    unexpected = []
    for name in on_disk:
        if name in used:
            continue
        if keys.ours(name) in whole():
            report.not_built.append(name)
        elif keys.ignores(name) or keys.spares(name):
            report.ignored.append(name)
        else:
            unexpected.append(name)
    _refuse(module, report.source, len(filled), missing, unexpected, misshapen)
    with torch.no_grad():
        for name, value in filled.items():
            own[name].copy_(value)


def _whole_names(module: Any) -> set[str]:
    """The names of all weights that the architecture has when every stage is built."""
    config = copy.deepcopy(module.config)
    config.select(out_features=[*config.out_features[:-1], config.selectable_names[-1]])
    with torch.device("meta"):
        return set(type(module)(config).state_dict())


_HISTORIC = {"gamma": "weight", "beta": "bias"}  # leaves in the Hub's oldest checkpoints


def _modern(on_disk: dict[str, str], keys: KeyMap, whole: Callable[[], set[str]]) -> dict[str, str]:
    """The names on disk with historic leaves replaced, except leaves that the architecture itself has."""
    names = {}
    for name, full in on_disk.items():
        stem, _, leaf = name.rpartition(".")
        modern = f"{stem}.{_HISTORIC.get(leaf, leaf)}"
        if leaf in _HISTORIC and keys.ours(name) not in whole() and keys.ours(modern) in whole():
            if modern in on_disk:
                raise ValueError(f"{on_disk[modern]!r} and {full!r} stand for the same tensor")
            name = modern
        names[name] = full
    return names


def _refuse(
    module: Any, source: str, filled: int, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> None:
    """Raise one ValueError for everything that does not fit, if anything."""
    if not (missing or unexpected or misshapen):
        return
    model = module.config.model_type
    problems = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} of another shape"
    if filled < len(missing) and not misshapen:
        raise ValueError(
            f"{source}: not a checkpoint of {model} in this configuration ({filled} tensors fit; "
            f"{problems}; the first missing is {missing[0]}); check backbone= and its sizes"
        )
    lines = [f"{source}: does not fit {model} in this configuration: {problems}"]
    for label, names in (("missing", missing), ("unexpected", unexpected), ("shape", misshapen)):
        lines += [f"  {label}: {name}" for name in names]
    raise ValueError("\n".join(lines))


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Give a stem's weight (C_out, C_in, kH, kW) another number of input channels, keeping its response.

    One channel gets the sum of all. More channels repeat the given ones in turn, scaled by the ratio of the counts;
    with 5 for 3, the response to a grey image changes by the differences between the colours.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // given), 1, 1)[:, :channels]
    return repeated * (given / channels)
