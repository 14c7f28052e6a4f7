"""The configs of backbones: the fields of the Hub's `config.json`, and stages declared before any tensor is made."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bbframe import ranges
from bbframe.files import write_text
from bbframe.schema import Rate, checked_value, nearest, type_hints
from bbframe.selection import Integers, Selection, Selects, Stage, StageNames, align

C = TypeVar("C", bound="BackboneConfigMixin")

# what a `config.json` on the Hub says about other things than the backbone; transformers before 4.30 wrote its whole
# generic config, text generation included, into the config of a part of a bigger model
_NOT_A_BACKBONES = frozenset(
    """
    architectures attn_implementation auto_map dtype finetuning_task gradient_checkpointing id2label label2id
    model_type num_labels output_attentions output_hidden_states problem_type return_dict torch_dtype torchscript
    transformers_version use_cache use_pretrained_backbone
    add_cross_attention bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id is_decoder is_encoder_decoder length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_scores pad_token_id prefix pruned_heads
    remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p typical_p use_bfloat16
    """.split()
)

SELECTION = ("out_features", "out_indices", "out_strides")


@dataclass(kw_only=True)
class BackboneConfigMixin(Selects):
    """Base of the configs: keyword-only dataclasses whose fields are those of the Hub's `config.json`.

    A subclass declares `stages`. Of `out_features` (names), `out_indices` (integers, negative ones count from the
    end) and `out_strides` (the last stage of each stride) each determines the others; given none, the last stage is
    selected. Raises ValueError for a wrong type, or for unknown, repeated, falling or contradicting values.
    """

    model_type: ClassVar[str] = ""
    # fields of published `config.json` files that change no map of this architecture
    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    # other names of fields
    attribute_map: ClassVar[Mapping[str, str]] = {}
    # properties that a `config.json` repeats although they follow from the fields
    derived_fields: ClassVar[tuple[str, ...]] = ("stage_names",)
    # False: the Hub's files know no stem, and count stages from 0 behind it
    stem_in_files: ClassVar[bool] = True

    out_features: InitVar[StageNames] = None
    out_indices: InitVar[Integers] = None
    out_strides: InitVar[Integers] = None
    num_channels: ranges.Bands = 3
    selection: Selection = field(init=False, default=Selection((), (), ()))  # empty until the fields are checked

    def __post_init__(self, out_features: StageNames, out_indices: Integers, out_strides: Integers) -> None:
        hints = type_hints(type(self))
        vars(self).update(_one_side_a_patch(vars(self)))
        for name in self.field_names():
            setattr(self, name, checked_value(getattr(self, name), hints[name], f"{self.model_type}: {name}"))
        self._refuse_impossible()
        self.validate()
        self.select(out_features, out_indices, out_strides)

    @classmethod
    def field_names(cls) -> list[str]:
        """The names of the fields, without the selection."""
        return [f.name for f in dataclasses.fields(cls) if f.init]

    def _refuse_impossible(self) -> None:
        """Raise ValueError for a training size smaller than a patch."""
        patch = getattr(self, "patch_size", 1)
        least = max(patch) if isinstance(patch, tuple) else patch
        for name in [name for name in self.field_names() if name.endswith("image_size")]:
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < least:
                raise ValueError(
                    f"{self.model_type}: {name}={_plain(value)} must be at least patch_size={_plain(patch)}"
                )

    def validate(self) -> None:
        """Raise ValueError for fields that contradict each other; runs before the selection is read."""

    def refuse_unequal_lengths(self, *names: str) -> None:
        """For `validate`: raise ValueError unless these fields, which hold one value a stage, are equally long."""
        if len({len(getattr(self, name)) for name in names}) > 1:
            given = " and ".join(f"{name}={list(getattr(self, name))}" for name in names)
            raise ValueError(f"{self.model_type}: {given} must be equally long")

    def refuse_no_multiple(self, name: str, divisor: str) -> None:
        """For `validate`: raise ValueError unless a field is a multiple of another."""
        value, by = getattr(self, name), getattr(self, divisor)
        if value % by:
            raise ValueError(f"{self.model_type}: {name}={value} must be a multiple of {divisor}={by}")

    def refuse_undivided_heads(self, name: str = "num_heads", why: str = "") -> None:
        """For `validate`: raise ValueError unless the heads of each stage divide its channels; `why` ends it."""
        heads, channels = getattr(self, name), [stage.channels for stage in self.stages[1:]]
        if any(width % count for width, count in zip(channels, heads, strict=True)):
            raise ValueError(
                f"{self.model_type}: {name}={list(heads)} must divide the channels of their stages, {channels}{why}"
            )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that the architecture has, the stem first."""
        raise NotImplementedError

    def declared_stages(self) -> tuple[Stage, ...]:
        return self.stages

    @property
    def selectable_names(self) -> list[str]:
        """The names of the stages that can be selected: all, except where timm hides the map of a stage."""
        return self.stage_names

    def select(
        self, out_features: StageNames = None, out_indices: Integers = None, out_strides: Integers = None
    ) -> None:
        self.selection = align(self.model_type, self.stages, out_features, out_indices, out_strides)

    def set_output_features_output_indices(self, out_features: StageNames, out_indices: Integers) -> None:
        """`select` under transformers' name."""
        self.select(out_features, out_indices)

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the form of the Hub's `config.json`."""
        names = ["out_features", "out_indices", *self.field_names(), *self.derived_fields]
        data = {"model_type": self.model_type, **{name: _plain(getattr(self, name)) for name in names}}
        if not self.stem_in_files and "stem" not in self.out_features:
            data["stage_names"] = self.stage_names[1:]
            data["out_indices"] = [i - 1 if i > 0 else i for i in self.out_indices]
        return data

    def to_json_string(self) -> str:
        """The text of the Hub's `config.json`."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder, which is made if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "config.json", self.to_json_string())

    @classmethod
    def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
        """A config from the data of a `config.json`; ValueError names an unknown key and the nearest known one."""
        cls.refuse_unknown(cls.foreign_keys(data))
        both = not cls.stem_in_files and data.get("out_features") and data.get("out_indices")
        if both and "stem" not in (data.get("stage_names") or ["stem"]):
            data = {**data, "out_indices": [i + 1 if i >= 0 else i for i in data["out_indices"]]}
        options = {*cls.field_names(), *SELECTION}
        try:
            return cls(**{key: value for key, value in cls.unaliased(data).items() if key in options})
        except ValueError as error:
            text = str(error)
            for alias in cls.attribute_map.keys() & data:  # what was written is what is named
                text = re.sub(rf"\b{cls.attribute_map[alias]}(?=[=[])", alias, text, count=1)
            raise ValueError(text) from error

    @classmethod
    def settled(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The data of a checkpoint's `config.json`, with the fields that follow from its own selection."""
        return data

    @classmethod
    def option_names(cls) -> set[str]:
        """Every key that sets a field or the selection."""
        return {*cls.field_names(), *SELECTION, *cls.attribute_map}

    @classmethod
    def unaliased(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """The same data with other names of fields replaced by the fields' own, two sides of a patch by one.

        Some versions of transformers saved a selection as `_out_features` and `_out_indices`: it counts where no
        other is stated.
        """
        renamed = {cls.attribute_map.get(key, key): value for key, value in data.items()}
        if all(renamed.get(key) is None for key in SELECTION):
            renamed |= {key: renamed[f"_{key}"] for key in SELECTION if f"_{key}" in renamed}
        return _one_side_a_patch(renamed)

    @classmethod
    def refuse_unknown(cls, keys: Iterable[str]) -> None:
        """Raise ValueError, with the nearest known key, for the first key that sets no field."""
        for key in keys:
            if key not in cls.option_names():
                raise ValueError(f"{cls.model_type}: unknown option {key!r}{nearest(key, cls.option_names())}")

    @classmethod
    def foreign_keys(cls, data: Mapping[str, Any]) -> list[str]:
        """The keys of a `config.json` that set no field and are not known to be meaningless for a backbone."""
        known = cls.option_names() | cls.ignored_fields | _NOT_A_BACKBONES | set(cls.derived_fields)
        return [key for key in data if key not in known and not key.startswith("_")]


# the selection is an argument of the constructor alone: from here on its names are those of `Selects`' properties
for _name in SELECTION:
    delattr(BackboneConfigMixin, _name)
    del BackboneConfigMixin.__annotations__[_name]


@dataclass(kw_only=True)
class HierarchicalConfig(BackboneConfigMixin):
    """The fields that hierarchical transformers share: `depths` blocks a stage, `embed_dim` channels in the first
    stage, twice the channels at half the resolution in each next one."""

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"num_hidden_layers", "patch_norm", "path_norm"})
    attribute_map: ClassVar[Mapping[str, str]] = {"num_attention_heads": "num_heads"}
    derived_fields: ClassVar[tuple[str, ...]] = ("hidden_size", "num_layers", "stage_names")

    patch_size: ranges.PatchSize = 4
    embed_dim: ranges.Width = 96
    depths: ranges.Depths = (2, 2, 6, 2)
    num_heads: ranges.HeadCounts = (3, 6, 12, 24)
    mlp_ratio: ranges.Ratio = 4.0
    qkv_bias: bool = True
    hidden_act: ranges.Activation = "gelu"
    layer_norm_eps: ranges.Epsilon = 1e-5
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.1
    initializer_range: ranges.Deviation = 0.02

    def validate(self) -> None:
        self.refuse_unequal_lengths("depths", "num_heads")
        self.refuse_undivided_heads(why=f"; embed_dim={self.embed_dim} doubles from stage to stage")

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


@dataclass(kw_only=True)
class PlainConfig(BackboneConfigMixin):
    """The fields that plain vision transformers share; a stage is one block, all of them have the patches' stride."""

    patch_size: ranges.PatchSize = 16
    hidden_size: ranges.Width = 768
    num_hidden_layers: ranges.Depth = 12
    num_attention_heads: ranges.Heads = 12
    mlp_ratio: ranges.WholeRatio = 4
    hidden_act: ranges.Activation = "gelu"
    qkv_bias: bool = True
    initializer_range: ranges.Deviation = 0.02

    def validate(self) -> None:
        self.refuse_no_multiple("hidden_size", "num_attention_heads")

    def refuse_missing_blocks(self, *names: str) -> None:
        """For `validate`: raise ValueError unless these fields count blocks, from 0, that there are."""
        for name in names:
            if max(blocks := getattr(self, name) or (), default=0) >= self.num_hidden_layers:
                last = self.num_hidden_layers - 1
                raise ValueError(f"{self.model_type}: {name}={list(blocks)} must count blocks within 0..{last}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        names = ["stem", *(f"stage{i + 1}" for i in range(self.num_hidden_layers))]
        return tuple(Stage(name, self.hidden_size, self.patch_size) for name in names)


def _one_side_a_patch(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields with an integer as the patch size where both sides of it are given, and are equal."""
    patch: Any = fields.get("patch_size")
    square = isinstance(patch, (tuple, list)) and len(patch) == 2 and patch[0] == patch[1]
    return {**fields, "patch_size": patch[0]} if square else dict(fields)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
