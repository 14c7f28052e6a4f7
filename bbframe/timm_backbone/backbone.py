"""Any network of timm (Wightman, "PyTorch Image Models", doi:10.5281/zenodo.4414861) that gives feature maps."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from torch import Size, Tensor

from bbframe.auto import Backbone, config_from_dict, register
from bbframe.backbone import BackboneConfigMixin, BackboneType
from bbframe.factory import Source
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.loading import adapt_input_channels
from bbframe.keymap import KeyMap
from bbframe.layers.initialise import LateDraws
from bbframe.preprocessing import Preprocessing
from bbframe.selection import Stage, align
from bbframe.timm_backbone.networks import RESERVED, Names, Network, build, maps, matched, network, reached_parameters
from bbframe.timm_backbone.weights import load, registered


@dataclasses.dataclass(kw_only=True)
class TimmBackboneConfig(BackboneConfigMixin):
    """A network by timm's name: `resnet50`, `resnet50.a1_in1k`, `hf-hub:user/model@revision`, `local-dir:folder`.

    Stages are timm's feature levels, named after its modules. `drop_path_rate` null is timm's own. `model_args` are
    further arguments of the network, such as `img_size`. `stages_of`, the data of a native config, keeps that config's
    stage names and indices instead; `source: timm` sets it. No config makes a tensor.
    """

    model_type: ClassVar[str] = "timm_backbone"
    attribute_map: ClassVar[Mapping[str, str]] = {"name": "backbone"}
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"use_timm_backbone"})

    backbone: str = "resnet18"
    num_channels: int = 3
    features_only: bool = True
    freeze_batch_norm_2d: bool = False
    output_stride: int | None = None
    drop_path_rate: float | None = None
    model_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    stages_of: dict[str, Any] | None = None

    def validate(self) -> None:
        if not self.features_only:
            raise ValueError("timm_backbone: features_only must stay true; a backbone gives maps, not logits")
        for key in self.model_args:
            if key in RESERVED:
                field = {"in_chans": "num_channels"}.get(key, key)
                hint = f"; set {field} itself" if field in self.__dataclass_fields__ else ""
                raise ValueError(f"timm_backbone: model_args may not hold {key!r}{hint}")
        self.backbone, self.checkpoint_cfg, stated = registered(self.backbone)
        self.model_args = {**stated, **self.model_args}

    def _stated(self) -> str:
        options = {
            "in_chans": self.num_channels,
            "output_stride": self.output_stride,
            "drop_path_rate": self.drop_path_rate,
            "pretrained_cfg": self.checkpoint_cfg,
            **self.model_args,
        }
        try:
            return json.dumps({key: value for key, value in options.items() if value is not None})
        except TypeError as error:
            raise ValueError(f"timm_backbone: model_args={self.model_args} must be plain data ({error})") from error

    @property
    def network(self) -> Network:
        """What timm makes of these fields; ValueError when it refuses them."""
        return network(self.backbone, self._stated())

    @property
    def stages(self) -> tuple[Stage, ...]:
        return _native_stages(json.dumps(self.stages_of)) if self.stages_of else self.network.levels

    @property
    def taps(self) -> dict[int, int | str]:
        """Where the map of each stage comes from, a level of timm's or a child module; of the stages that have one."""
        if self.stages_of:
            return matched(self.backbone, self._stated(), str(self.stages_of.get("model_type")), self.stages)
        return {index: index for index, level in enumerate(self.network.info) if level["module"]}

    @property
    def selectable_names(self) -> list[str]:
        return [self.stage_names[index] for index in self.taps]

    def select(
        self,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        known = self.selectable_names
        for name in align(self.model_type, self.stages, out_features, out_indices, out_strides)[0]:
            if name not in known:
                raise ValueError(
                    f"timm_backbone: timm does not expose the map of {name} in {self.backbone}; "
                    f"choose from: {', '.join(known)}"
                )
        super().select(out_features, out_indices, out_strides)


@lru_cache(maxsize=64)
def _native_stages(config: str) -> tuple[Stage, ...]:
    return config_from_dict(json.loads(config)).stages


class _SameNames(KeyMap):
    """Our own checkpoints, and those of transformers, hold the names of the module."""

    def theirs(self, ours: str) -> list[str]:
        return [ours]

    def ours(self, theirs: str) -> str | None:
        return theirs


@register
class TimmBackbone(Backbone):
    """A network of timm. Maps come in timm's order; hidden states are the maps of all built stages.

    What timm builds although no selected map depends on it, such as the other branches of HRNet, does not train.
    """

    config_class = TimmBackboneConfig
    backbone_type = BackboneType.TIMM
    keys = _SameNames("", ignored=["*.num_batches_tracked"])

    def __init__(self, config: TimmBackboneConfig):
        import timm

        super().__init__(config)
        net = self.config.network
        self._taps = {index: tap for index, tap in self.config.taps.items() if index < self.num_built}
        self._tap_names = [self.config.stage_names[index] for index in self._taps]
        self._names = Names(net)
        self._backbone = build(net, self._taps)
        self._reached = reached_parameters(net, self._taps)
        if self._reached is not None:
            chosen = [i for i, name in zip(self._taps, self._tap_names, strict=True) if name in self.out_features]
            needed = set().union(*(self._reached[index] for index in chosen))
            for name, parameter in self._backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in needed)
        if config.freeze_batch_norm_2d:
            self._backbone = timm.layers.freeze_batch_norm_2d(self._backbone)
        self.preprocessing = dataclasses.replace(Preprocessing.from_timm(net.cfg), size=net.input_size)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        return maps(self._backbone, x)

    def to_maps(self, states: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        return tuple(states[self._tap_names.index(name)] for name in self.config.out_features)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
        **fields: Any,
    ) -> TimmBackbone:
        """timm's weights by timm's name, or a folder that `save_pretrained` wrote; `load_report` says what was loaded.

        `fields` are those of the config, the selection among them. Raises ValueError when a tensor is missing,
        unexpected or of another shape.
        """
        name = os.fspath(checkpoint)
        hub: Any = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token, "sha256": sha256}
        if os.path.isdir(name) and "model_type" in (Checkpoint(name).json("config.json") or {}):
            return super().from_pretrained(name, revision=revision, **hub, **fields)
        given = {key: value for key, value in fields.items() if value is not None}
        with LateDraws():
            return cls(cls.config_class.from_dict({"backbone": name, **given}))._load(revision, **hub)

    @classmethod
    def from_source(cls, source: Source, config: BackboneConfigMixin) -> TimmBackbone:
        """What a configuration file describes: a network of timm, or timm's version of a native architecture."""
        if not isinstance(config, TimmBackboneConfig):
            assert source.timm_name is not None
            config = TimmBackboneConfig(
                backbone=source.timm_name,
                num_channels=getattr(config, "num_channels", 3),
                drop_path_rate=getattr(config, "drop_path_rate", None),
                stages_of=config.to_dict(),
                out_features=config.out_features,
            )
        with LateDraws():
            return cls(config)._load(source.revision, sha256=source.sha256) if source.pretrained else cls(config)

    def _load(self, revision: str | None, **hub_options: Any) -> TimmBackbone:
        self.load_report = load(self, self.config.network, self._names, revision, **hub_options)
        return self.eval()

    def adapt_weight(self, name: str, weight: Tensor, shape: Size) -> tuple[Tensor, str] | None:
        """The first convolution for another number of channels; None for anything else."""
        first = self.config.network.cfg.get("first_conv") or ()
        stems = [f"{conv}.weight" for conv in ([first] if isinstance(first, str) else first)]
        same = weight.ndim == len(shape) == 4 and (weight.shape[0], *weight.shape[2:]) == (shape[0], *shape[2:])
        if not same or self._names.theirs(name)[0] not in stems or shape[1] != self.config.num_channels:
            return None
        return adapt_input_channels(weight, shape[1]), f"{weight.shape[1]} input channels to {shape[1]}"

    def parameter_stages(self) -> dict[str, int]:
        """The stage of every parameter: the first whose map depends on it, or the stem before a native first stage."""
        if self._reached is None:
            raise ValueError(
                f"timm_backbone: cannot tell which stage a parameter of {self.config.backbone} belongs to; "
                "leave freezing and layer-wise decay off"
            )
        first, tap = next(iter(self._taps.items()))
        root = f"{self._names.ours(self.config.network.info[tap]['module'])}." if isinstance(tap, int) else ""
        stages = {}
        for name, _ in self.named_parameters():
            own = name.removeprefix("_backbone.")
            stages[name] = next((s for s, reached in self._reached.items() if own in reached), self.num_built - 1)
            if stages[name] == first > 0 and not name.startswith(root):
                stages[name] = first - 1
        return stages

    def parameter_layers(self) -> dict[str, int]:
        """The depth of every parameter as timm groups them for layer-wise decay; by stage where it does not."""
        import timm

        full = self.config.network.full
        if not hasattr(full, "group_matcher"):
            return self.parameter_stages()
        groups = timm.models.group_parameters(full, full.group_matcher(coarse=False), reverse=True)
        depths = {name: groups[self._names.theirs(name)[0]] for name, _ in self.named_parameters()}
        order = {depth: i for i, depth in enumerate(sorted(set(depths.values())))}
        return {name: order[depth] for name, depth in depths.items()}

    def gradient_checkpointing_enable(self) -> None:
        """timm's own recomputation; ValueError where this network has none."""
        network = self._backbone if hasattr(self._backbone, "set_grad_checkpointing") else self._backbone.model
        try:
            network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise ValueError(
                f"timm_backbone: {self.config.backbone} cannot recompute its activations; switch that off"
            ) from error
