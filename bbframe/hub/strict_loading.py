"""Weights into a backbone, strictly and with a report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.inner_network import inner_network
from bbframe.keymap import KeyMap, OwnNames
from bbframe.preprocessing import Preprocessing
from bbframe.schema import parse


@dataclass
class LoadReport:
    """What became of every tensor of a checkpoint and of the module; names are the module's, or as commented."""

    source: str
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)  # of each weights file, of the bytes that were read
    preprocessing: str = "default"  # the file that it came from
    images: str = ""  # how that file says that images are prepared, in words
    dtype: torch.dtype | None = None  # of the checkpoint's weights
    notes: list[str] = field(default_factory=list)  # what was assumed, or chosen, on the way
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
        if self.images:
            lines[0] += f"; images by {self.preprocessing.replace('default', _DEFAULT)}: {self.images}"
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  adapted {name}: {how}" for name, how in self.adapted.items()]
        if self.unknown_config:
            lines.append(f"  config.json keys without a meaning here: {', '.join(self.unknown_config)}")
        return "\n".join(lines)


_DEFAULT = "ImageNet's default, the checkpoint has no preprocessor_config.json"


def read_preprocessing(checkpoint: Checkpoint, report: LoadReport) -> Preprocessing | str:
    """How a checkpoint says that its images are prepared, noted in its report, or why nobody can tell.

    Without a `preprocessor_config.json` it is the default. That a file is missing in the cache does not say so.
    """
    recorded = (checkpoint.record or {}).get("inputs")
    data = None if recorded else checkpoint.preprocessor
    try:
        if recorded:
            found, report.preprocessing = parse(Preprocessing, recorded, "inputs"), "the run's record"
        elif data is not None:
            report.preprocessing = "preprocessor_config.json"
            if unlike := Preprocessing.refused(data):
                report.images = "unknown"
                return f"{checkpoint.source}: preprocessor_config.json: {unlike}"
            found = Preprocessing.from_hub(data)
        elif why := checkpoint.unknown("preprocessor_config.json"):
            report.preprocessing, report.images = "a preprocessor_config.json that is not in the cache", "unknown"
            return why
        else:
            found = Preprocessing()
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{checkpoint.source}: preprocessor_config.json cannot be read ({error!r})") from error
    report.images = str(found)
    return found


def load_weights(
    module: Any, tables: Sequence[KeyMap], checkpoint: Checkpoint, made_with: Any | None = None
) -> LoadReport:
    """`fill` a backbone from a checkpoint by the one of these tables that knows most of its names."""
    tensors, report = read_tensors(checkpoint)
    tensors = module.as_in_files(tensors)
    own = list(module.state_dict(keep_vars=True))
    keys, tensors = unwrapped(own, [*tables, OwnNames()], tensors, checkpoint, report)
    fill(module, keys, tensors, report, made_with)
    return report


def read_tensors(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], LoadReport]:
    """All tensors of a checkpoint, and the beginning of its report; ValueError when two files hold the same one."""
    files = checkpoint.weights
    hashed = {file.name: file.sha256 for file in files if file.sha256}
    report = LoadReport(checkpoint.source, checkpoint.revision, hashed)
    report.notes = [checkpoint.note] * bool(checkpoint.note) + [f"{f.name}: {f.picked}" for f in files if f.picked]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if twice := next((name for name in file.tensors if name in tensors), None):
            raise ValueError(f"{checkpoint.source}: {file.name} and a file before it both hold {twice!r}; keep one")
        tensors.update(file.tensors)
    report.dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None)
    return tensors, report


def unwrapped(
    own: Sequence[str],
    tables: Sequence[KeyMap],
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    report: LoadReport,
) -> tuple[KeyMap, dict[str, Tensor]]:
    """The table that knows most of a checkpoint's names, and the tensors whose names follow the prefix of its network.

    What does not follow the prefix is ignored, and the report says so. Raises ValueError when several prefixes fit.
    """
    found = inner_network(own, tables, list(tensors))
    if len(found.equals) > 1:
        names = ", ".join(map(repr, found.equals[:8]))
        raise ValueError(
            f"{report.source}: holds the network several times, its names follow {names}; "
            f"{checkpoint.choice(found.equals[:8])}"
        )
    prefix = found.prefix
    if not prefix:
        return found.keys, dict(tensors)
    report.ignored += [name for name in tensors if not name.startswith(prefix)]
    besides = f", not {', '.join(map(repr, found.others))}" if found.others else ""
    report.notes.append(f"the network's names follow {prefix!r}{besides}")
    return found.keys, {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def fill(
    module: Any, keys: KeyMap, tensors: Mapping[str, Tensor], report: LoadReport, made_with: Any | None = None
) -> None:
    """Copy a checkpoint's tensors into a backbone and account for every tensor on either side.

    Those that belong to other sizes are adapted by `module.adapt_weight(name, tensor, shape, made_with)`, where the
    last is a config with the sizes that the checkpoint states, None where it states none. Raises one ValueError that
    lists all that is missing, unexpected and misshapen; the module is unchanged then.
    """
    whole = cache(partial(_whole_names, module))
    try:
        on_disk = _modern(keys.strip(tensors), keys, whole)
    except ValueError as error:
        raise ValueError(f"{report.source}: {error}") from error
    own = module.state_dict(keep_vars=True)
    missing, misshapen, not_finite, filled = [], [], [], {}
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
        shape = [len(loaded) * loaded[0].shape[0], *loaded[0].shape[1:]] if loaded[0].ndim else []
        if shape != list(target.shape) and (len(loaded) > 1 or _stretched(loaded[0])):
            misshapen.append(f"{', '.join(parts)} {shape} instead of {list(target.shape)}")
            continue
        value = loaded[0] if len(loaded) == 1 else torch.cat(loaded)
        if value.is_floating_point() != target.is_floating_point():
            misshapen.append(f"{parts[0]} holds {value.dtype} instead of {target.dtype}")
            continue
        adapted = module.adapt_weight(name, value, target.shape, made_with)
        if adapted is not None:
            value, report.adapted[name] = adapted
        if value.shape != target.shape:
            misshapen.append(f"{parts[0]} {list(value.shape)} instead of {list(target.shape)}")
            report.adapted.pop(name, None)
            continue
        if value.layout != torch.strided:
            value, report.adapted[name] = value.to_dense(), "a sparse tensor made dense"
        if value.is_floating_point() and not value.isfinite().all():
            not_finite.append(parts[0])
        filled[name] = value
        report.loaded.append(name)
    unexpected: list[str] = []
    heads: list[str] = []
    for name in on_disk:
        if name in used:
            continue
        if keys.ours(name) in whole():
            report.not_built.append(name)
        elif keys.ignores(name) or keys.spares(name):
            report.ignored.append(name)
        elif name.partition(".")[0] in _HEADS:
            heads.append(name)
        else:
            unexpected.append(name)
    if heads and not (missing or misshapen):
        report.ignored += heads
        report.notes.append(f"left out {', '.join(map(_printable, heads[:8]))}, taken for a head")
    elif heads:
        unexpected = [name for name in on_disk if name in {*unexpected, *heads}]
    _refuse(module, report.source, len(filled), missing, unexpected, misshapen)
    if not_finite:
        raise ValueError(
            f"{report.source}: {len(not_finite)} of {len(filled)} tensors hold values that are not finite (nan or "
            f"infinite), the first is {not_finite[0]}: the training that wrote them had failed; give an earlier "
            "checkpoint of it"
        )
    with torch.no_grad():
        for name, value in filled.items():
            own[name].copy_(value)


# under which names a classifier ends
_HEADS = frozenset({"fc", "head", "heads", "classifier", "last_linear"})


def _stretched(tensor: Tensor) -> bool:
    """Whether a tensor repeats what is stored, so that a small file makes it as large as it likes."""
    strided = tensor.layout == torch.strided
    return strided and tensor.nbytes > tensor.untyped_storage().nbytes()


def _whole_names(module: Any) -> set[str]:
    """The names of all weights that the architecture has when every stage is built."""
    config = copy.deepcopy(module.config)
    config.select(out_features=[*config.out_features[:-1], config.selectable_names[-1]])
    with torch.device("meta"):
        return set(type(module)(config).state_dict())


_MOST_LISTED = 500  # names of a kind in an error
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
        lines += [f"  {label}: {_printable(name)}" for name in names[:_MOST_LISTED]]
        lines += [f"  {label}: {len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
    raise ValueError("\n".join(lines))


def _printable(name: str) -> str:
    """A name in a file as it may stand in a line of text."""
    return name if name.isprintable() and 0 < len(name) <= 200 else f"{name[:200]!r}"


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
