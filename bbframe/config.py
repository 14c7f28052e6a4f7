"""The configs of backbones: the fields of the Hub's `config.json`, and stages declared before any tensor is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from bbframe.schema import convert, nearest, type_hints
from bbframe.selection import Stage, align

C = TypeVar("C", bound="BackboneConfigMixin")

# what a `config.json` on the Hub says about things that are no part of a backbone
_NOT_A_BACKBONES = frozenset(
    "architectures attn_implementation auto_map dtype finetuning_task gradient_checkpointing id2label label2id "
    "model_type num_labels output_attentions output_hidden_states problem_type return_dict torch_dtype torchscript "
    "transformers_version use_cache use_pretrained_backbone".split()
)

# fields that count what there must be some of
_COUNTS = frozenset(
    "embed_dim embedding_size hidden_size hidden_sizes intermediate_size num_channels num_groups num_hidden_layers "
    "patch_size width_factor".split()
)

_SELECTION = frozenset("out_features out_indices out_strides".split())


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
        self._refuse_impossible()
        self.validate()
        self.select(self.out_features, self.out_indices, self.out_strides)
        self._aligned = True

    def _refuse_impossible(self) -> None:
        """Refuse counts of nothing, rates beyond 0 and 1, and training sizes without a patch, by a ValueError."""
        patch = getattr(self, "patch_size", 1)
        for name in self.__dataclass_fields__:
            if name in _SELECTION or (value := getattr(self, name)) is None:
                continue
            values, stated = value if isinstance(value, tuple) else (value,), f"{name}={_plain(value)}"
            if name in _COUNTS and min(values, default=1) < 1:
                raise ValueError(f"{self.model_type}: {stated} must be at least 1")
            if name.endswith(("_prob", "_rate")) and not 0 <= value < 1:
                raise ValueError(f"{self.model_type}: {stated} must be at least 0 and below 1")
            if name.endswith("image_size") and min(values) < patch:
                raise ValueError(f"{self.model_type}: {stated} must be at least patch_size={patch}")

    def validate(self) -> None:
        """Refuse fields that contradict each other, by a ValueError; runs before the stages are read."""

    def refuse_unequal_lengths(self, *names: str) -> None:
        """For `validate`: raise ValueError unless these fields, one value a stage each, are equally long."""
        if len({len(getattr(self, name)) for name in names}) > 1:
            given = " and ".join(f"{name}={list(getattr(self, name))}" for name in names)
            raise ValueError(f"{self.model_type}: {given} must be equally long")

    def refuse_no_multiple(self, name: str, divisor: str) -> None:
        """For `validate`: raise ValueError unless a field is a multiple of another, both above 0."""
        value, by = getattr(self, name), getattr(self, divisor)
        if value < 1 or by < 1 or value % by:
            raise ValueError(f"{self.model_type}: {name}={value} must be a multiple of {divisor}={by}")

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


@dataclass(kw_only=True)
class HierarchicalConfig(BackboneConfigMixin):
    """What hierarchical transformers configure alike: `depths` blocks a stage, `embed_dim` channels in the first and
    twice as many in each next, at half the resolution."""

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"num_hidden_layers", "patch_norm", "path_norm"})
    attribute_map: ClassVar[Mapping[str, str]] = {"num_attention_heads": "num_heads"}
    derived_fields: ClassVar[tuple[str, ...]] = ("hidden_size", "num_layers", "stage_names")

    num_channels: int = 3
    patch_size: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    initializer_range: float = 0.02

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "num_heads")
        for stage, heads in zip(self.stages[1:], self.num_heads, strict=True):
            if heads < 1 or stage.channels % heads:
                raise ValueError(
                    f"{self.model_type}: num_heads={list(self.num_heads)} must divide the channels of their stages, "
                    f"{[s.channels for s in self.stages[1:]]}; embed_dim={self.embed_dim} doubles from stage to stage"
                )

    @property
    def num_layers(self) -> int:
        """The number of stages behind the stem."""
        return len(self.depths)

    @property
    def hidden_size(self) -> int:
        """The channels of the last stage."""
        return self.stages[-1].channels

    @property
    def stages(self) -> tuple[Stage, ...]:
        scales = [2**i for i in range(self.num_layers)]
        levels = [Stage(f"stage{i}", self.embed_dim * s, self.patch_size * s) for i, s in enumerate(scales, start=1)]
        return (Stage("stem", self.embed_dim, self.patch_size), *levels)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
