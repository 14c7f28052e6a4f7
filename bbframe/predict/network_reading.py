"""A trained network read from the folder that it was saved to, here or on the Hub; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import bbframe
from bbframe.auto import backbone_class, machine_memory, ready, refuse_too_large
from bbframe.backbone import Backbone
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.client import no_repository
from bbframe.hub.stated_config import stated_config
from bbframe.predict.saved_network import FORMAT, HEAD, NETWORK, SavedNetwork, own_tensors
from bbframe.predict.trained_network import TrainedNetwork, checked_network
from bbframe.predict.training_facts import TrainingFacts
from bbframe.preprocessing import BoxPreprocessing, Preprocessing
from bbframe.registry import find, make, parse_part
from bbframe.run.calibration_file import CALIBRATION, FittedCalibration, head_digest, read_calibration
from bbframe.schema import parse, printable
from bbframe.tasks.classification import Classification
from bbframe.tasks.optimizer_options import AdamWOptions, ConstantOptions
from bbframe.tasks.task import Task

_TIMM_NAME = re.compile(r"\w[\w.-]*")


def read_network(files: Checkpoint, device: str) -> TrainedNetwork:
    """The network in a folder that `save_network` wrote, or in a repository that holds one.

    Raises ValueError, in one line that names the file, for anything that does not fit; sizes that a file only claims
    are refused before memory is taken for them.
    """
    saved = read_description(files)
    why = f"{files.source} names it as its backbone, and a saved network may ask for nothing else"
    with no_repository(why):
        backbone = _backbone(files, saved)
        task = _task(files, saved, backbone)
    with _naming(files, NETWORK):
        preprocessing = _preprocessing(saved, backbone.config.num_channels)
    backbone.preprocessing = _as_images(preprocessing)
    network = TrainedNetwork(
        task,
        preprocessing,
        category_ids=saved.category_ids,
        decoding=saved.decoding,
        fitted=_fitted(files, saved, task),
        origin=f"network {files.source}",
        fast=saved.fast,
        told=_Told(saved.training),
    )
    return checked_network(network, device)


@dataclass(frozen=True)
class _Told:
    facts: TrainingFacts

    def __call__(self) -> TrainingFacts:
        return self.facts


@contextmanager
def _naming(files: Checkpoint, name: str) -> Iterator[None]:
    """Put the file's name before the errors of what is read from it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_place(files, name)}: {error}") from error


def _place(files: Checkpoint, name: str) -> str:
    return f"{files.source}/{name}".replace("//", "/")


def read_description(files: Checkpoint) -> SavedNetwork:
    """The content of bbframe.json. Raises ValueError for one that is not there, and for whatever is wrong in it."""
    data = files.json(NETWORK)
    where = _place(files, NETWORK)
    if data is None:
        if why := files.unknown(NETWORK):
            raise ValueError(why)
        if files.file("config.json") is None:
            raise ValueError(f"{files.source}: holds no {NETWORK}, so that it is no trained network of bbframe")
        raise ValueError(
            f"{files.source}: is a backbone without a head; bbframe.AutoBackbone.from_pretrained({files.source!r}) "
            "loads it"
        )
    given = data.get("format")
    if given != FORMAT or isinstance(given, bool):
        raise ValueError(
            f"{where}: format={printable(given)} is none that bbframe {bbframe.__version__} reads, which is {FORMAT}; "
            "take the version of bbframe that wrote it"
        )
    found = parse(SavedNetwork, data, where)
    if len(found.class_names) < 1 or len(found.category_ids) != len(found.class_names):
        raise ValueError(
            f"{where}: category_ids has {len(found.category_ids)} values for {len(found.class_names)} class_names; "
            "there must be one for each, and one class or more"
        )
    return found


@contextmanager
def _plugins_named(files: Checkpoint, saved: SavedNetwork) -> Iterator[None]:
    """Say which module brings a part that is not known."""
    try:
        yield
    except ValueError as error:
        if modules := [str(plugin.get("module")) for plugin in saved.plugins]:
            told = printable(", ".join(modules))
            hint = f"; its own parts come from {told}: import that first, if you trust it"
            raise ValueError(f"{error}{hint}") from error
        raise


def _backbone(files: Checkpoint, saved: SavedNetwork) -> Backbone:
    label, data = _place(files, "config.json"), files.needed_config()
    with _naming(files, "config.json"), _plugins_named(files, saved):
        kind: Any = backbone_class(str(data.get("model_type")))
    name = data.get("backbone", "")
    if kind.config_class.model_type == "timm_backbone" and not _TIMM_NAME.fullmatch(str(name)):
        raise ValueError(f"{label}: backbone={printable(name)} must be a plain name of timm, no folder or repository")
    stated = stated_config(label, data, kind)
    config = stated.config({})
    if getattr(config, "use_pretrained_backbone", False):
        raise ValueError(f"{label}: use_pretrained_backbone=true would load other weights; it must be false")
    with _naming(files, "config.json"):
        refuse_too_large(config)
    net: Backbone = kind.from_files(files, config, stated)
    report = net.load_report
    assert report is not None
    wrong = [*report.fresh, *report.adapted, *report.not_built, *report.ignored]
    if wrong or report.unknown_config:
        what = f"tensors such as {wrong[0]}" if wrong else f"config.json's key {report.unknown_config[0]!r}"
        raise ValueError(
            f"{files.source}: its weights are not those of its config.json: {what} do not fit; save the network again"
        )
    return ready(net, saved.fast)


def _task(files: Checkpoint, saved: SavedNetwork, backbone: Backbone) -> Task:
    """The task with the head's weights; its tensors are compared with those of the file before any is made."""
    with _naming(files, NETWORK), _plugins_named(files, saved):
        options = parse_part("task", {**saved.task}, "task")
        head = parse_part("head", {**saved.head}, "head")
    given = files.tensors(HEAD)
    if given is None:
        raise ValueError(files.unknown(HEAD) or f"{_place(files, HEAD)}: is missing; save the network again")
    count = len(saved.class_names)
    with _naming(files, NETWORK):
        if head.task != options.name:
            raise ValueError(f"head={head.name} is for task={head.task}, not for task={options.name}")
        head.check_strides(backbone.strides, [stage.stride for stage in backbone.config.stages])
        shapes = _shapes_of_head(head, backbone, count)
    _check_shapes(files, given, shapes, "head.")
    with _naming(files, NETWORK):
        counted = issubclass(find("task", options.name).load(), Classification)
        if counted and 48 * count**2 > machine_memory():
            raise ValueError(f"class_names: the counts of {count} x {count} confusions exceed the memory here")
        optim, schedule = AdamWOptions(), ConstantOptions()  # nothing trains here
        task: Task = make("task", options, backbone, saved.class_names, head=head, optim=optim, schedule=schedule)
    own = own_tensors(task.state_dict())
    _check_shapes(files, given, {name: tuple(x.shape) for name, x in own.items()}, "")
    _check_numbers(files, HEAD, given)
    for name, x in own.items():
        if x.is_floating_point() != given[name].is_floating_point():
            raise ValueError(f"{_place(files, HEAD)}: {name} is {given[name].dtype}, and the network's is {x.dtype}")
    task.load_state_dict(given, strict=False)
    return task


def _shapes_of_head(head: Any, backbone: Backbone, count: int) -> dict[str, tuple[int, ...]] | None:
    """The shapes of a head's tensors, without any memory for them; None for a user's head that cannot tell."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            made: nn.Module = make("head", head, backbone.channels, backbone.strides, count)
    except (RuntimeError, NotImplementedError) as error:
        if find("head", head.name).plugin is None or "overflow" in str(error):
            raise ValueError(f"head: cannot be made ({' '.join(str(error).split())})") from error
        return None
    return {f"head.{name}": tuple(x.shape) for name, x in made.state_dict().items()}


def _check_shapes(
    files: Checkpoint, given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]] | None, prefix: str
) -> None:
    """Raise ValueError unless the file has the expected tensors below a prefix, and no others."""
    if expected is None:
        return
    theirs = {name: tuple(x.shape) for name, x in given.items() if name.startswith(prefix)}
    wrong = [name for name in {**expected, **theirs} if theirs.get(name) != expected.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{_place(files, HEAD)}: {len(wrong)} tensors are not those of the head, the first is {printable(name)} "
            f"({theirs.get(name, 'missing')} there, {expected.get(name, 'none')} by {NETWORK}); save the network again"
        )


def _check_numbers(files: Checkpoint, file: str, tensors: Mapping[str, Tensor]) -> None:
    for name, x in tensors.items():
        if x.is_floating_point() and x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise ValueError(f"{_place(files, file)}: {name} holds {x.dtype}; save the network as float32")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"{_place(files, file)}: {name} holds numbers that are not finite (nan or inf)")


def _preprocessing(saved: SavedNetwork, num_channels: int) -> Preprocessing:
    kind = BoxPreprocessing if "min_size" in saved.preprocessing else Preprocessing
    found = parse(kind, saved.preprocessing, "preprocessing")
    if not len(found.mean) == len(found.std) == num_channels:
        raise ValueError(
            f"preprocessing: mean={list(found.mean)} and std={list(found.std)} must have {num_channels} values, one "
            "for each channel of the backbone"
        )
    return found


def _as_images(preprocessing: Preprocessing) -> Preprocessing:
    """A detector's preprocessing as its backbone alone has it."""
    fields = [entry.name for entry in dataclasses.fields(Preprocessing)]
    return Preprocessing(**{name: getattr(preprocessing, name) for name in fields})


def _fitted(files: Checkpoint, saved: SavedNetwork, task: Task) -> FittedCalibration:
    if not saved.calibrated:
        return FittedCalibration()
    tensors, path = files.tensors(CALIBRATION), files.file(CALIBRATION)
    if tensors is None or path is None:
        why = files.unknown(CALIBRATION)
        raise ValueError(why or f"{_place(files, CALIBRATION)}: is missing; save the network again")
    _check_numbers(files, CALIBRATION, tensors)
    found = read_calibration(path.parent, task)
    if found == FittedCalibration():
        raise ValueError(
            f"{_place(files, CALIBRATION)}: belongs to another head than {HEAD}, whose SHA-256 is "
            f"{head_digest(task.head)[:12]}...; save the network again"
        )
    return found
