"""The config of a network by timm's name."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.registry import find
from bbframe.schema import Name, Range, Rate
from bbframe.selection import Integers, Stage, StageNames, align
from bbframe.timm_backbone.timm_network import RESERVED, Network, matched, network
from bbframe.timm_backbone.weights import registered


@dataclasses.dataclass(kw_only=True)
class TimmBackboneConfig(BackboneConfigMixin):
    """A network by timm's name: `resnet50`, `resnet50.a1_in1k`, `hf-hub:user/model@revision`, `local-dir:folder`.

    Stages are timm's feature levels, named after its modules. `drop_path_rate` null is timm's own. `model_args` are
    further arguments of the network, such as `img_size`. `stages_of`, the data of a native config, keeps that config's
    stage names and indices instead; `source: timm` sets it. With `use_pretrained_backbone` a backbone made from this
    config loads timm's weights. No config makes a tensor.
    """

    model_type: ClassVar[str] = "timm_backbone"
    attribute_map: ClassVar[Mapping[str, str]] = {"name": "backbone"}
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"use_timm_backbone"})

    backbone: Name = "resnet18"
    features_only: bool = True
    freeze_batch_norm_2d: bool = False
    use_pretrained_backbone: bool = False
    output_stride: Annotated[int, Range(1, 64)] | None = None
    drop_path_rate: Rate | None = None
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

    @classmethod
    def of_native(cls, native: BackboneConfigMixin, name: str) -> TimmBackboneConfig:
        """timm's version of a native architecture: timm's network, with the stages and the selection of `native`."""
        return cls(
            backbone=name,
            num_channels=native.num_channels,
            drop_path_rate=getattr(native, "drop_path_rate", None),
            stages_of=native.to_dict(),
            out_features=native.out_features,
        )

    @property
    def stated(self) -> str:
        """The arguments of the network in JSON, those of this config's fields included."""
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
        return network(self.backbone, self.stated)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return _native_stages(json.dumps(self.stages_of)) if self.stages_of else self.network.levels

    @property
    def taps(self) -> dict[int, int | str]:
        """Where the map of each stage comes from, a level of timm's or a child module; of the stages that have one."""
        if self.stages_of:
            return matched(self.backbone, self.stated, str(self.stages_of.get("model_type")), self.stages)
        return {index: index for index, level in enumerate(self.network.info) if level["module"]}

    @property
    def selectable_names(self) -> list[str]:
        return [self.stage_names[index] for index in self.taps]

    def select(
        self, out_features: StageNames = None, out_indices: Integers = None, out_strides: Integers = None
    ) -> None:
        selection = align(self.model_type, self.stages, out_features, out_indices, out_strides)
        known = self.selectable_names
        for name in selection.features:
            if name not in known:
                raise ValueError(
                    f"timm_backbone: timm does not expose the map of {name} in {self.backbone}; "
                    f"choose from: {', '.join(known)}"
                )
        self.selection = selection


def without_loading(config: Any) -> TimmBackboneConfig:
    """A copy of a config whose backbone is made without loading weights."""
    config = copy.deepcopy(config)
    config.use_pretrained_backbone = False
    return config


@lru_cache(maxsize=64)
def _native_stages(config: str) -> tuple[Stage, ...]:
    data = json.loads(config)
    backbone: type[Backbone] = find("backbone", data.get("model_type"), "stages_of: model_type").load()
    return backbone.config_class.from_dict(data).stages
