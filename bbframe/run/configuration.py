"""A whole configuration as typed options, checked before anything is built; light, so that an error comes at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from bbframe.auto import refuse_too_large
from bbframe.backbone import Backbone
from bbframe.config import SELECTION, BackboneConfigMixin
from bbframe.data import LoadingOptions
from bbframe.factory import BackboneOptions, check_backbone, make_backbone
from bbframe.heads import HeadOptions
from bbframe.preprocessing import Preprocessing
from bbframe.registry import PartOptions, find, make, names, parse_part
from bbframe.run.lightning_parts import LightningParts, check_installed, parse_lightning_parts
from bbframe.schema import Fraction, Length, Name, Options, Range, Seed, Text, demand, parse, printable
from bbframe.tasks import OptimOptions, TaskOptions

if TYPE_CHECKING:
    from bbframe.run.checkpoint import SavedRun
    from bbframe.tasks.task import Task


Word = Annotated[str, Text("at most 200 characters, no slashes", r"(?!\.{1,2}$)[^/\\]{1,200}")]


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """The keys at the top of a configuration.

    `name` (null: `backbone_name`) and `tags` label the run; `train` and `test` say what happens, from `ckpt_path` on
    when it is given; `debug` runs one batch of everything and shows tracebacks.
    """

    prefix: ClassVar[str] = ""

    seed: Seed = 0
    name: Word | None = None
    backbone_name: Word | None = None
    tags: Annotated[tuple[Name, ...], Length(0, 100)] = ()
    train: bool = True
    test: bool = True
    ckpt_path: Name | None = None
    rerun: Name | None = None
    debug: bool = False
    output_dir: Name = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train and self.ckpt_path is None:
            raise ValueError("train=false needs a trained network: ckpt_path=<run folder>/checkpoints/best.ckpt")


Devices = Annotated[int, Range(1, 1024)]
Device = Annotated[int, Range(0, 1023)]
DeviceText = Annotated[str, Text('such as "2" or "0,1"', r"-1|\d{1,4}(,\d{1,4})*")]
Batches = Annotated[int, Range(1, 10**9, "batches")] | Annotated[float, Range(0.0001, 1, "of them")]
Interval = Annotated[
    str,
    Text(
        "a number of optimizer steps, such as 500, or of minutes, such as 10min, or 90s or 2h",
        r"[1-9][0-9]{0,8}|(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})? ?(s|sec|seconds?|m|min|minutes?|h|hours?)",
    ),
]
# fmt: off
Strategy = Literal[  # Lightning's, whose registry would take seconds to import
    "auto", "single_device", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true", "ddp_spawn_find_unused_parameters_false",
    "ddp_spawn_find_unused_parameters_true", "ddp_fork_find_unused_parameters_false",
    "ddp_fork_find_unused_parameters_true", "ddp_notebook_find_unused_parameters_false",
    "ddp_notebook_find_unused_parameters_true", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2",
    "deepspeed_stage_2_offload", "deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme",
    "fsdp", "fsdp_cpu_offload", "single_xla", "single_tpu", "xla", "xla_debug",
]
# fmt: on


@dataclass(frozen=True, kw_only=True)
class TrainerOptions(Options):
    """Lightning's Trainer, by its own argument names; then `early_stopping` (epochs without a better result),
    `ema_decay` (of an exponential moving average of the weights, used wherever the network is evaluated),
    `checkpoint_every` (optimizer steps, or a time as in "10 min", between two writings of last.ckpt) and `keep` (how
    many of the best epochs; 0: a run that has ended well leaves no checkpoint at all).
    """

    prefix: ClassVar[str] = "trainer: "

    max_epochs: Literal[-1] | Annotated[int, Range(1, 10**6, "epochs")] = 10
    max_steps: Literal[-1] | Annotated[int, Range(1, 10**10, "optimizer steps")] = -1
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: Literal["auto", -1] | Devices | Annotated[tuple[Device, ...], Length(1, 1024)] | DeviceText = "auto"
    num_nodes: Annotated[int, Range(1, 10_000)] = 1
    strategy: Strategy = "auto"
    precision: Literal["64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"] = "32-true"
    gradient_clip_val: Annotated[float, Range(0, 10**6)] | None = None
    accumulate_grad_batches: Annotated[int, Range(1, 10**6, "batches")] = 1
    check_val_every_n_epoch: Annotated[int, Range(1, 10**6, "epochs")] = 1
    val_check_interval: Batches | None = None
    log_every_n_steps: Annotated[int, Range(1, 10**9, "optimizer steps")] = 10
    deterministic: bool = False
    detect_anomaly: bool = False
    limit_train_batches: Batches | None = None
    limit_val_batches: Batches | None = None
    limit_test_batches: Batches | None = None
    sync_batchnorm: bool = False
    early_stopping: Annotated[int, Range(1, 10**6, "epochs")] | None = None
    ema_decay: Fraction | None = None
    checkpoint_every: Annotated[int, Range(1, 10**9, "optimizer steps")] | Interval | None = None
    keep: Annotated[int, Range(0, 1000, "checkpoints")] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        endless = self.max_epochs == self.max_steps == -1
        demand(not endless, "trainer: max_epochs", -1, "must be 1 or more, or -1 with max_steps given")
        rule = f"would never validate in max_epochs={self.max_epochs}"
        seldom = self.max_epochs != -1 and self.check_val_every_n_epoch > self.max_epochs
        demand(not seldom, "trainer: check_val_every_n_epoch", self.check_val_every_n_epoch, rule)
        one = "keeps the checkpoint of the best validation alone: leave out trainer.keep"
        demand(
            self.val_check_interval is None or self.keep < 2, "trainer: val_check_interval with keep", self.keep, one
        )

    @property
    def interval(self) -> int | timedelta | None:
        """`checkpoint_every` as a number of steps or a time."""
        given = self.checkpoint_every
        if given is None:
            return None
        if str(given).isdigit():
            return int(given)
        number, unit = re.fullmatch(r"([0-9.]+) ?([smh]).*", str(given)).groups()  # type: ignore[union-attr]
        return timedelta(seconds=float(number) * {"s": 1, "m": 60, "h": 3600}[unit])


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

    def check_machine(self) -> None:
        """Raise ValueError if a run here would not find the packages, or on a CPU the memory, that it needs."""
        from bbframe.run.cluster import placed_processes  # imports Lightning

        for key, part in self.logger.items():
            check_installed(f"logger.{key}", part)
        _check_devices(replace(self.trainer, **placed_processes(self.trainer)))
        if self.run.train and self.task.freeze != "all" and _on_cpu(self.trainer):
            refuse_too_large(self.backbone.network_config, copies=4)

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
            raise ValueError(f"{group}: {printable(config[group])} must be a mapping of options")
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
    data.check_channels(backbone.config.num_channels)
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
    _check_devices(configuration.trainer)
    refuse_too_large(backbone.network_config)
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


def _on_cpu(trainer: TrainerOptions) -> bool:
    """Whether a run has processors alone."""
    import torch

    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not gpu)


def _check_devices(trainer: TrainerOptions) -> None:
    import torch

    cuda, mps, cores = torch.cuda.device_count(), int(torch.backends.mps.is_available()), os.cpu_count() or 1
    on_cpu = _on_cpu(trainer)
    here = {"cuda": cuda, "mps": mps, "cpu": 4 * cores, "tpu": 1024}
    count = here["cpu"] if on_cpu else here.get(trainer.accelerator, cuda or mps)
    if count == 0:
        raise ValueError(
            f"trainer: accelerator={trainer.accelerator!r}, but torch {torch.__version__} finds no such device here; "
            "use trainer.accelerator=auto or cpu"
        )
    what, given = f"trainer: devices={printable(trainer.devices)}", trainer.devices
    if isinstance(given, str) and given != "auto":
        given = tuple(map(int, given.split(","))) if "," in given else int(given)
    if on_cpu and (isinstance(given, tuple) or given == -1):
        raise ValueError(f"{what} chooses GPUs, and this run has none; use a number of processes, or auto")
    wanted = max(given) + 1 if isinstance(given, tuple) else given if isinstance(given, int) else 1
    if wanted == 0 or wanted > count:
        there = f"{count} ({cores} cores)" if on_cpu else str(count)
        raise ValueError(f"{what}, but there are {there}; use trainer.devices={cores if on_cpu else count} or auto")
