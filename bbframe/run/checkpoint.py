"""A checkpoint file: the record that it carries, and one check and one opening for all who need it in a run."""

from __future__ import annotations

import dataclasses
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbframe.auto import backbone_class
from bbframe.backbone_mixin import BackboneType
from bbframe.hub.checkpoint_files import RECORD
from bbframe.hub.client import first_line
from bbframe.hub.safe_pickle import load_plain
from bbframe.run.checkpoint_paths import META, is_checkpoint, is_sharded
from bbframe.run.sharded_checkpoint import damaged_shard, read_sharded

if TYPE_CHECKING:
    from bbframe.tasks.task import Task


BEST = "best"  # says of a checkpoint of a best epoch which one it is: its metric, value and epoch
EPOCHS = "epoch_state"  # the rows of metrics.csv, and the running means of an epoch
SECONDS = "seconds"  # that the run had taken
TESTED = ("state_dict", "epoch", "global_step")  # what a test needs
# what a training goes on from
RESUMED = (*TESTED, "loops", "callbacks", "optimizer_states", "lr_schedulers", EPOCHS, SECONDS)


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """The record that every checkpoint carries, as plain data.

    `config` (secrets masked) and `overrides` repeat the run; `plugins` are the user's modules that brought its parts.
    `backbone` is the backbone's config, `preprocessing` its own, and `inputs` how the run prepared its images.
    `category_ids` are what the files of detection call the classes. `parameter_names` lists the trained parameters
    in the optimizer's order.
    """

    config: dict[str, Any]
    overrides: list[str]
    plugins: list[dict[str, Any]]
    class_names: list[str]
    category_ids: list[int] | None
    backbone: dict[str, Any]
    preprocessing: dict[str, Any]
    inputs: dict[str, Any]
    parameter_names: list[str] = dataclasses.field(default_factory=list)

    def put(self, checkpoint: dict[str, Any], parameter_names: list[str]) -> None:
        """Write the record into a checkpoint's content."""
        checkpoint[RECORD] = {**vars(self), "parameter_names": parameter_names}

    @property
    def backbone_options(self) -> dict[str, Any]:
        """The backbone's group of a configuration, by what was built: it names no weights, and no place of any."""
        backbone, given = backbone_class(str(self.backbone.get("model_type"))), self.config.get("backbone")
        known = backbone.config_class.option_names() - {"use_pretrained_backbone"} | {"model_type"}
        built = {key: value for key, value in self.backbone.items() if key in known}
        if backbone.backbone_type is not BackboneType.TIMM and isinstance(given, Mapping):
            built["fast"] = given.get("fast", True)
        return built

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], path: Path | str) -> SavedRun:
        """The record in a checkpoint's content. Raises ValueError that names the file when there is none."""
        record = checkpoint.get(RECORD) if isinstance(checkpoint, Mapping) else None
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(record, Mapping) or not names <= record.keys() or not _plain(record):
            raise ValueError(
                f"checkpoint {path} does not say how its images were prepared: it is not a checkpoint of bbframe, or "
                "one of an earlier version; train again"
            )
        return cls(**{name: record[name] for name in names})


def _plain(record: Mapping[str, Any]) -> bool:
    """Whether the parts of a record by which a run is repeated are of their kinds."""
    texts = isinstance(record["overrides"], list) and all(isinstance(line, str) for line in record["overrides"])
    return texts and isinstance(record["config"], dict) and isinstance(record["backbone"], dict)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint file that is whole. The tensors in `content` are mapped from the file and must not be changed."""

    path: Path
    content: dict[str, Any]

    @cached_property
    def run(self) -> SavedRun:
        """The run that left it. Raises ValueError when it is no checkpoint of bbframe."""
        return SavedRun.of(self.content, self.path)

    def check_complete(self, train: bool) -> None:
        """Raise ValueError when something is missing that a test, or to `train` on, needs."""
        if train and BEST in self.content:
            last = self.path.with_name("last.ckpt")
            weights = f"backbone.pretrained=true backbone.checkpoint={self.path}"
            gone = "" if is_checkpoint(last) else f", which is missing; to begin with its weights give {weights}"
            raise ValueError(
                f"checkpoint {self.path} holds weights alone, no state of an optimizer; a training goes on from "
                f"ckpt_path={last}{gone}"
            )
        missing = [key for key in (RESUMED if train else TESTED) if key not in self.content]
        if missing:
            raise ValueError(f"checkpoint {self.path} is incomplete: it lacks {', '.join(map(repr, missing))}")

    def check_fits(self, task: Task) -> None:
        """Raise ValueError when it holds other classes or another network than `task`; nothing is loaded."""
        then, now = self.run.config["task"]["name"], task.options.name
        if then != now:
            raise ValueError(
                f"checkpoint {self.path} is of task={then}, this is task={now}; to start from its backbone give "
                "backbone.pretrained=true backbone.checkpoint=<its run folder>/backbone"
            )
        classes = self.run.class_names
        if classes != task.class_names:
            raise ValueError(
                f"checkpoint {self.path} tells {len(classes)} classes apart ({', '.join(classes[:3])}, ...), the data "
                f"has {len(task.class_names)} ({', '.join(task.class_names[:3])}, ...); give the data that it was "
                "trained on"
            )
        states = (self.content["state_dict"], task.state_dict())
        theirs, ours = ({key: tuple(value.shape) for key, value in state.items()} for state in states)
        wrong = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
        if wrong:
            raise ValueError(
                f"checkpoint {self.path} is of another network: {len(wrong)} tensors differ, the first is {wrong[0]} "
                f"({theirs.get(wrong[0], 'missing')} there, {ours.get(wrong[0], 'missing')} here); leave out the "
                "overrides that change the network"
            )


def checkpoint_in(path: Path, names: Sequence[str]) -> Path:
    """`path`, or of a run folder the first of its checkpoints called `names`; raises ValueError when it has none."""
    if not path.is_dir() or is_sharded(path):
        return path
    found = [file for name in names if is_checkpoint(file := path / "checkpoints" / f"{name}.ckpt")]
    if not found:
        raise ValueError(
            f"ckpt_path={path}: the run left no checkpoint, so nothing of it is there to go on from; rerun={path} does"
            " it again"
        )
    return found[0]


def load_checkpoint(path: Path) -> LoadedCheckpoint:
    """Open a checkpoint of tensors and plain containers, after every byte has been compared with its checksums.

    The last file opened is kept, so that all who need it in one run share one check and one reading. Raises ValueError
    that names the file, says what is wrong with it, and names a whole checkpoint beside it if there is one.
    """
    file = path / META if path.is_dir() else path
    status = file.stat() if file.is_file() else None
    return _opened(path, status and (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _opened(path: Path, version: tuple[int, int, int] | None) -> LoadedCheckpoint:
    problem = _damage(path)
    if problem is not None:
        others = sorted(path.parent.glob("*.ckpt"), key=lambda other: -other.stat().st_mtime)
        whole = next((other for other in others if other.name != path.name and _damage(other) is None), None)
        raise ValueError(f"checkpoint {path} {problem}" + (f"; {whole} is whole: try that one" if whole else ""))
    try:
        content = read_sharded(path) if path.is_dir() else load_plain(path)
    except (pickle.UnpicklingError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint {path} holds more than tensors and plain containers: {first_line(error)}"
        ) from error
    return LoadedCheckpoint(path, content)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None when every byte of it agrees with its checksums."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        return "is a URL; download it and give the local path"
    if is_sharded(path):
        problem = _damage(path / META)
        return damaged_shard(path) if problem is None else f"is damaged: its {META} {problem}"
    if not path.is_file():
        return "is not a file, nor the folder of a checkpoint" if path.exists() else "does not exist"
    if path.stat().st_size == 0:
        return "is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "expands when it is read, which no checkpoint does: torch stores its tensors as they are"
            damaged = archive.testzip()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except Exception:  # zipfile raises a dozen different errors over bytes that make no sense
        return "is truncated, or not a checkpoint"
    return f"is damaged (the checksum of {damaged} differs)" if damaged else None
