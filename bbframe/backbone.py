"""The contract of every backbone: stages declared before any tensor is made, a selection of them, maps (B, C, H, W).

The names and the behaviour are those of transformers' backbones; `strides` and `out_strides` are added.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from bbframe.layers.attention import recorded_attentions
from bbframe.layers.recompute import Recomputed
from bbframe.options import convert, nearest, type_hints
from bbframe.preprocessing import Preprocessing
from bbframe.selection import Stage, align

C = TypeVar("C", bound="BackboneConfigMixin")

# what a `config.json` on the Hub says about things that are no part of a backbone
_NOT_A_BACKBONES = frozenset(
    "architectures attn_implementation auto_map dtype finetuning_task gradient_checkpointing id2label label2id "
    "model_type num_labels output_attentions output_hidden_states problem_type return_dict torch_dtype torchscript "
    "transformers_version use_cache use_pretrained_backbone".split()
)

_SELECTION = frozenset("out_features out_indices out_strides".split())


class BackboneOutput(NamedTuple):
    """What a backbone returns.

    `feature_maps` holds one map (B, C, H, W) for each selected stage, in stage order. `hidden_states`, on request, the
    state after the stem and after each built stage, in the layout of the architecture. `attentions`, on request, the
    attention probabilities of each block, in the layout of the architecture.
    """

    feature_maps: tuple[Tensor, ...]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class BackboneType(enum.Enum):
    """Where a backbone's modules come from, with the values that transformers uses."""

    TIMM = "timm"
    TRANSFORMERS = "transformers"


class _Selected:
    """A dataclass field that selects stages: assigning it re-aligns the other two, reading it gives a fresh list."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: BackboneConfigMixin | None, owner: type) -> Any:
        if config is None:
            return None  # the default that the dataclass sees
        value: Any = config.__dict__.get(f"_{self.name}")
        return list(value) if config.__dict__.get("_aligned") else value

    def __set__(self, config: BackboneConfigMixin, value: Any) -> None:
        if config.__dict__.get("_aligned"):
            config.select(**{self.name: value})
        else:
            config.__dict__[f"_{self.name}"] = value


@dataclass(kw_only=True)
class BackboneConfigMixin:
    """Base of the configs: keyword-only dataclasses whose fields are those of the Hub's `config.json`.

    A subclass declares `stages`. Of `out_features` (names), `out_indices` (integers, negative ones count from the
    end) and `out_strides` (the last stage of each stride) each determines the others; given none, the last stage is
    selected. Raises ValueError for a wrong type, or for unknown, repeated, falling or contradicting values.
    """

    model_type: ClassVar[str] = ""
    # fields of published `config.json` files that shape no map of this architecture
    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    # other names of fields
    attribute_map: ClassVar[Mapping[str, str]] = {}
    # properties that a `config.json` states although they follow from the fields
    derived_fields: ClassVar[tuple[str, ...]] = ("stage_names",)

    out_features: Sequence[str] | None = _Selected()  # type: ignore[assignment]
    out_indices: Sequence[int] | None = _Selected()  # type: ignore[assignment]
    out_strides: Sequence[int] | None = _Selected()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, hint in type_hints(type(self)).items():
            if name in self.__dataclass_fields__ and name not in _SELECTION:  # `select` checks those
                setattr(self, name, convert(getattr(self, name), hint, f"{self.model_type}: {name}"))
        self.validate()
        self.select(self.out_features, self.out_indices, self.out_strides)
        self._aligned = True

    def validate(self) -> None:
        """Refuse fields that contradict each other, by a ValueError; runs before the stages are read."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that the architecture has, the stem first."""
        raise NotImplementedError

    @property
    def stage_names(self) -> list[str]:
        """The names of all stages."""
        return [stage.name for stage in self.stages]

    @property
    def selectable_names(self) -> list[str]:
        """The names of the stages whose maps can be had: all, but for a network of timm that hides some."""
        return self.stage_names

    @property
    def num_features(self) -> list[int]:
        """The channels of all stages."""
        return [stage.channels for stage in self.stages]

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """The channels of all stages by name."""
        return {stage.name: stage.channels for stage in self.stages}

    @property
    def channels(self) -> list[int]:
        """The channels of the selected maps."""
        return [stage.channels for stage in self._selected_stages()]

    @property
    def strides(self) -> list[int]:
        """The strides of the selected maps, in input pixels."""
        return [stage.stride for stage in self._selected_stages()]

    def _selected_stages(self) -> list[Stage]:
        by_name = {stage.name: stage for stage in self.stages}
        return [by_name[name] for name in self.out_features or ()]

    def select(
        self,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        """Choose the maps; the object stays as it was when this raises ValueError."""
        features, indices = align(self.model_type, self.stages, out_features, out_indices, out_strides)
        stride = {stage.name: stage.stride for stage in self.stages}
        self.__dict__.update(_out_features=features, _out_indices=indices, _out_strides=[stride[f] for f in features])

    def set_output_features_output_indices(
        self, out_features: Sequence[str] | None, out_indices: Sequence[int] | None
    ) -> None:
        """`select`, under the name that transformers gives it."""
        self.select(out_features, out_indices)

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the form of the Hub's `config.json`."""
        data: dict[str, Any] = {"model_type": self.model_type}
        for field in dataclasses.fields(self):
            if field.name != "out_strides":  # follows from the other two
                data[field.name] = _plain(getattr(self, field.name))
        return {**data, **{name: _plain(getattr(self, name)) for name in self.derived_fields}}

    @classmethod
    def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
        """A config from the data of a `config.json`; ValueError names an unknown key and the nearest known one."""
        for key in cls.foreign_keys(data):
            raise ValueError(f"{cls.model_type}: unknown option {key!r}{nearest(key, cls.option_names())}")
        named = {cls.attribute_map.get(key, key): value for key, value in data.items()}
        return cls(**{f.name: named[f.name] for f in dataclasses.fields(cls) if f.name in named})

    @classmethod
    def option_names(cls) -> set[str]:
        """Every key that sets a field."""
        return {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map)

    @classmethod
    def foreign_keys(cls, data: Mapping[str, Any]) -> list[str]:
        """The keys that are neither fields nor known to be no part of a backbone."""
        known = cls.option_names() | cls.ignored_fields | _NOT_A_BACKBONES | set(cls.derived_fields)
        return [key for key in data if key not in known and not key.startswith("_")]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class BackboneMixin:
    """What every backbone does, mixed into an `nn.Module` that has `stem` and `stages` (one module a stage).

    A subclass takes its config and builds the stem and the first `num_built - 1` stages: those behind the last
    selected one would cost time, and have parameters without a gradient. It defines `to_map` when a state is no map
    yet, and `forward_stages` when its stages do more than follow each other.
    """

    config_class: ClassVar[type[BackboneConfigMixin]]
    backbone_type: ClassVar[BackboneType] = BackboneType.TRANSFORMERS
    has_attentions: ClassVar[bool] = False
    config: Any
    preprocessing: Preprocessing
    stem: nn.Module
    stages: nn.ModuleList

    def __init__(self, config: BackboneConfigMixin) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise ValueError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, not a {type(config).__name__}"
            )
        self.config = copy.deepcopy(config)  # a backbone owns its config
        self.preprocessing = Preprocessing()
        self.num_built = max(config.stage_names.index(name) for name in config.out_features or ()) + 1

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """The state after the stem and after each built stage, from pixels (B, C, H, W): one after the other."""
        states = [self.stem(x)]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return states

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        """A selected stage's state as a map (B, C, H, W); `size` is the (height, width) of the input."""
        return state

    def to_maps(self, states: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """The selected maps, in stage order."""
        names = self.config.stage_names
        return tuple(self.to_map(states[names.index(name)], name, size) for name in self.config.out_features)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> BackboneOutput:
        """Compute the selected maps of a batch of normalised images (B, num_channels, H, W), any height and width.

        Raises ValueError for another number of channels, or when attentions are asked of an architecture without.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"{self.config.model_type}: pixel_values of shape {tuple(pixel_values.shape)} must be "
                f"(batch, {self.config.num_channels}, height, width)"
            )
        attentions = None
        if output_attentions:
            if not self.has_attentions:
                raise ValueError(f"{self.config.model_type} has no attention maps; leave output_attentions off")
            with recorded_attentions() as recorded:
                states = self.forward_stages(pixel_values)
            attentions = tuple(recorded)
        else:
            states = self.forward_stages(pixel_values)
        maps = self.to_maps(states, (pixel_values.shape[2], pixel_values.shape[3]))
        return BackboneOutput(maps, tuple(states) if output_hidden_states else None, attentions)

    def forward_with_filtered_kwargs(self, *args: Any, **kwargs: Any) -> BackboneOutput:
        """`forward` without the arguments that it does not know, nor attentions where there are none."""
        known = inspect.signature(self.forward).parameters
        if not self.has_attentions:
            kwargs.pop("output_attentions", None)
        return self(*args, **{key: value for key, value in kwargs.items() if key in known})  # type: ignore[operator]

    # the selection, and what follows from it

    @property
    def stage_names(self) -> list[str]:
        """The names of all stages, built or not."""
        return self.config.stage_names

    @property
    def num_features(self) -> list[int]:
        """The channels of all stages, built or not."""
        return self.config.num_features

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """The channels of all stages by name, built or not."""
        return self.config.out_feature_channels

    @property
    def channels(self) -> list[int]:
        """The channels of the maps that `forward` returns."""
        return self.config.channels

    @property
    def strides(self) -> list[int]:
        """The strides of the maps that `forward` returns, in input pixels."""
        return self.config.strides

    @property
    def out_features(self) -> list[str]:
        """The names of the selected stages; assigning them re-aligns the indices."""
        return self.config.out_features

    @out_features.setter
    def out_features(self, value: Sequence[str] | None) -> None:
        self._select(out_features=value)

    @property
    def out_indices(self) -> list[int]:
        """The indices of the selected stages; assigning them re-aligns the names."""
        return self.config.out_indices

    @out_indices.setter
    def out_indices(self, value: Sequence[int] | None) -> None:
        self._select(out_indices=value)

    @property
    def out_strides(self) -> list[int]:
        """The strides of the selected stages; assigning them selects the last stage of each."""
        return self.config.strides

    @out_strides.setter
    def out_strides(self, value: Sequence[int] | None) -> None:
        self._select(out_strides=value)

    def _select(self, **selection: Any) -> None:
        config = copy.deepcopy(self.config)
        config.select(**selection)
        last = config.stage_names.index(config.out_features[-1])
        if last >= self.num_built:
            end = config.stage_names[self.num_built - 1]
            raise ValueError(
                f"{config.model_type}: {config.out_features[-1]} was not built: this backbone ends at {end}, the last "
                f"stage requested when it was made; make a new one with out_features={config.out_features}"
            )
        self.config = config
        self.use_maps(config.out_features)

    def use_maps(self, names: Sequence[str]) -> None:
        """Say which of the selected maps are read: what serves the others alone takes no gradient."""
        for module in self.children():  # type: ignore[attr-defined]
            if hasattr(module, "select_maps"):
                module.select_maps(names)

    # the order of the parameters, for freezing and layer-wise decay

    def blocks(self) -> Iterator[tuple[int, nn.Module]]:
        """Every residual block in order, with the index of its stage (the stem is 0)."""
        for index, stage in enumerate(self.stages, start=1):
            for block in getattr(stage, "blocks", [stage]):
                yield index, block

    def parameter_stages(self) -> dict[str, int]:
        """The stage of every parameter: 0 for the stem; what follows the last stage counts with it."""
        stages = {}
        for name, _ in self.named_parameters():  # type: ignore[attr-defined]
            root, _, rest = name.partition(".")
            if root == "stem":
                stages[name] = 0
            elif root == "stages":
                stages[name] = int(rest.partition(".")[0]) + 1
            elif root == "norms":
                stages[name] = self.stage_names.index(rest.partition(".")[0])
            else:
                stages[name] = self.num_built - 1
        return stages

    def parameter_layers(self) -> dict[str, int]:
        """The depth of every parameter in blocks: 0 for the stem, 1 for the first block, and so on.

        What stands before the blocks of a stage (a downsampling) counts with the first of them; what stands behind
        (a norm of its map), with the last.
        """
        first: dict[int, int] = {0: 0}
        last: dict[int, int] = {0: 0}
        depth_of: dict[int, int] = {}
        for depth, (stage, block) in enumerate(self.blocks(), start=1):
            first.setdefault(stage, depth)
            last[stage] = depth
            depth_of.update({id(p): depth for p in block.parameters()})
        stages = self.parameter_stages()
        layers = {}
        for name, parameter in self.named_parameters():  # type: ignore[attr-defined]
            ends = first if name.startswith("stages.") else last
            layers[name] = depth_of.get(id(parameter), ends[stages[name]])
        return layers

    def gradient_checkpointing_enable(self) -> None:
        """Keep no activations inside the blocks in training: they are computed again for the gradient."""
        for _, block in self.blocks():
            if not isinstance(block.forward, Recomputed):
                block.forward = Recomputed(block)
