"""A whole configuration as typed options, checked before anything is built; light, so that an error comes at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from bbframe.backbone import Backbone
from bbframe.config import SELECTION, BackboneConfigMixin
from bbframe.data import LoadingOptions
from bbframe.factory import BackboneOptions, check_backbone, make_backbone
from bbframe.heads import HeadOptions
from bbframe.preprocessing import Preprocessing
from bbframe.registry import PartOptions, find, make, names, parse_part
from bbframe.run.lightning_parts import LightningParts, parse_lightning_parts
from bbframe.schema import parse
from bbframe.tasks import OptimOptions, TaskOptions

if TYPE_CHECKING:
    from bbframe.run.checkpoint import SavedRun
    from bbframe.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The keys at the top of a configuration.

    `name` (null: `backbone_name`) and `tags` label the run; `train` and `test` say what happens, from `ckpt_path` on
    when it is given; `debug` runs one batch of everything and shows tracebacks.
    """

    seed: int = 0
    name: str | None = None
    backbone_name: str | None = None
    tags: tuple[str, ...] = ()
    train: bool = True
    test: bool = True
    ckpt_path: str | None = None
    rerun: str | None = None
    debug: bool = False
    output_dir: str = "outputs"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} must be within 0..{2**32 - 1}")
        if self.name is not None and (not self.name or "/" in self.name or "\\" in self.name):
            raise ValueError(f"name={self.name!r} becomes a part of the run folder's name; leave out slashes")
        if not self.train and self.ckpt_path is None:
            raise ValueError("train=false needs a trained network: ckpt_path=<run folder>/checkpoints/best.ckpt")


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Lightning's Trainer, by its own argument names; then `early_stopping` (epochs without a better result) and
    `ema_decay` (of an exponential moving average of the weights, used wherever the network is evaluated) and
    `checkpoint_every` (optimizer steps, or minutes as in "10 min", between writings of last.ckpt within an epoch)."""

    max_epochs: int = 10
    max_steps: int = -1
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: int | str | tuple[int, ...] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"] = "32-true"
    gradient_clip_val: float | None = None
    accumulate_grad_batches: int = 1
    check_val_every_n_epoch: int = 1
    log_every_n_steps: int = 10
    deterministic: bool = False
    detect_anomaly: bool = False
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    sync_batchnorm: bool = False
    early_stopping: int | None = None
    ema_decay: float | None = None
    checkpoint_every: int | str | None = None

    def __post_init__(self) -> None:
        for key in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps", "num_nodes"):
            if getattr(self, key) < 1:
                raise ValueError(f"trainer: {key}={getattr(self, key)} must be 1 or more")
        if self.max_epochs < 1 and (self.max_epochs != -1 or self.max_steps < 1):
            raise ValueError(f"trainer: max_epochs={self.max_epochs} must be 1 or more, or -1 with max_steps given")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(f"trainer: early_stopping={self.early_stopping} epochs must be 1 or more, or null")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"trainer: ema_decay={self.ema_decay} must be within 0..1, such as 0.999, or null")
        if self.checkpoint_every is not None and not self.interval:
            raise ValueError(
                f"trainer: checkpoint_every={self.checkpoint_every} must be a number of optimizer steps, such as 500,"
                " or of minutes, such as 10min"
            )

    @property
    def interval(self) -> int | timedelta | None:
        """`checkpoint_every` as a number of steps or a time; None when it is neither."""
        text = str(self.checkpoint_every)
        if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text) or None
        minutes = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(?:m|min|minutes?)", text)
        return timedelta(minutes=float(minutes[1])) or None if minutes else None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A checked configuration: each group as its options; the backbone's selects what the head wants by default."""

    run: RunOptions
    backbone: BackboneOptions
    task: TaskOptions
    head: HeadOptions
    data: LoadingOptions
    optim: OptimOptions
    schedule: PartOptions
    trainer: TrainerOptions
    logger: LightningParts = field(default_factory=dict)
    callbacks: LightningParts = field(default_factory=dict)

    @property
    def backbone_name(self) -> str:
        """What tables call the backbone: timm's name, or the configuration file's."""
        config = self.backbone.config
        return str(getattr(config, "backbone", None) or self.run.backbone_name or config.model_type).rpartition("/")[2]

    def make_backbone(self, saved: SavedRun | None) -> Backbone:
        """The backbone, with the weights that the options name; without weights when a checkpoint's run is given.

        What the options leave open, the pretrained checkpoint of that run had supplied; the selection is theirs alone.
        """
        if saved is None:
            return make_backbone(self.backbone)
        backbone = make_backbone(self.backbone.completed(saved.backbone).without_weights())
        backbone.preprocessing = Preprocessing(**saved.preprocessing)
        return backbone

    def make_task(self, backbone: Backbone, class_names: Sequence[str]) -> Task:
        """The LightningModule of task, head, optimizer and schedule."""
        return make("task", self.task, backbone, class_names, head=self.head, optim=self.optim, schedule=self.schedule)


GROUPS = frozenset("backbone task head data optim schedule trainer logger callbacks".split())


def parse_configuration(config: Mapping[str, Any]) -> Configuration:
    """Plain data as typed options. Raises ValueError, one line, for all that the data alone show to be wrong."""
    run = parse(RunOptions, {key: value for key, value in config.items() if key not in GROUPS}, "configuration")
    for group in sorted(GROUPS):
        if group not in config:
            raise ValueError(f"configuration: the group {group!r} is missing")
        if not isinstance(config[group] or {}, Mapping):
            raise ValueError(f"{group}: {config[group]!r} must be a mapping of options")
    task = parse_part("task", config["task"], "task")
    head = parse_part("head", config["head"], "head")
    data = parse_part("data", config["data"], "data")
    if data.task != task.name:
        raise ValueError(
            f"data={data.name} is for task={data.task}, and this is task={task.name}; choose data="
            f"{_names_for('data', task.name)}, or task={data.task}"
        )
    if head.task != task.name:
        raise ValueError(
            f"task={task.name} has no use for head={head.name}; choose head={_names_for('head', task.name)}"
        )
    backbone = check_backbone(config["backbone"] or {})
    declared = [stage.stride for stage in backbone.config.stages]
    if not backbone.given.keys() & set(SELECTION) and (strides := head.preferred_strides(declared)):
        backbone = backbone.with_strides(strides)
    head.check_strides(backbone.config.strides, declared)
    configuration = Configuration(
        run=run,
        backbone=backbone,
        task=task,
        head=head,
        data=data,
        optim=parse_part("optim", config["optim"], "optim"),
        schedule=parse_part("schedule", config["schedule"], "schedule"),
        trainer=parse(TrainerOptions, config["trainer"], "trainer"),
        logger=parse_lightning_parts("logger", config["logger"] or {}),
        callbacks=parse_lightning_parts("callbacks", config["callbacks"] or {}),
    )
    _check_freeze(backbone.config, task)
    if task.precisions is not None and configuration.trainer.precision not in task.precisions:
        raise ValueError(
            f"trainer: precision={configuration.trainer.precision!r} would round the boxes of task={task.name} too; "
            "use bf16-mixed or 16-mixed"
        )
    if configuration.trainer.accelerator in ("gpu", "cuda", "mps"):
        _check_gpu(configuration.trainer)
    return configuration


def _names_for(kind: str, task: str) -> str:
    """The names of the parts that serve a task, as a menu."""
    return " or ".join(name for name in names(kind) if getattr(find(kind, name).options, "task", None) == task)


def _check_freeze(backbone: BackboneConfigMixin, task: TaskOptions) -> None:
    last = (backbone.out_features or backbone.stage_names)[-1]
    built = backbone.stage_names[: backbone.stage_names.index(last) + 1]
    if isinstance(task.freeze, int) and not 0 <= task.freeze < len(built):
        menu = ", ".join(f"{i}={name}" for i, name in enumerate(built))
        raise ValueError(
            f"{backbone.model_type}: task.freeze={task.freeze} must be none, all, or a stage that is built ({menu})"
        )


def _check_gpu(trainer: TrainerOptions) -> None:
    import torch

    cuda, mps = torch.cuda.device_count(), int(torch.backends.mps.is_available())
    count = {"cuda": cuda, "mps": mps, "gpu": cuda or mps}[trainer.accelerator]
    wanted = trainer.devices if isinstance(trainer.devices, int) else 1
    if count == 0:
        raise ValueError(
            f"trainer: accelerator={trainer.accelerator!r}, but torch {torch.__version__} finds no such device here; "
            "use trainer.accelerator=auto or cpu"
        )
    if wanted > count:
        raise ValueError(f"trainer: devices={wanted}, but there are {count}; use trainer.devices={count} or auto")
