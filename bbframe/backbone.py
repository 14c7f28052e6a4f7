"""The contract of every backbone: a selection of declared stages, a map (B, C, H, W) of each.

The names and the behaviour are those of transformers' backbones; `strides` and `out_strides` are added.
`BackboneMixin` is the contract, `Backbone` adds weights from and to the Hub.
"""

from __future__ import annotations

import copy
import enum
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.config import BackboneConfigMixin
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.saving import hub_tensors, save_checkpoint
from bbframe.hub.stated_config import StatedConfig, plain_config, stated_config
from bbframe.hub.strict_loading import LoadReport, adapt_input_channels, load_weights, read_preprocessing
from bbframe.keymap import Host, KeyMap
from bbframe.layers.attention import recorded_attentions
from bbframe.layers.initialise import LateDraws
from bbframe.layers.recompute import Recomputed
from bbframe.preprocessing import Preprocessing
from bbframe.schema import nearest
from bbframe.selection import Selection, Selects, Stage

__all__ = ["Backbone", "BackboneConfigMixin", "BackboneMixin", "BackboneOutput", "BackboneType", "Stage"]

B = TypeVar("B", bound="Backbone")


class BackboneOutput(NamedTuple):
    """What a backbone returns: a named tuple of three that also answers to the names of those that are not None.

    `feature_maps` holds one map (B, C, H, W) for each selected stage, in stage order. `hidden_states`, on request, the
    state after the stem and after each built stage, in the layout of the architecture. `attentions`, on request, the
    attention probabilities of each block, in the layout of the architecture.
    """

    feature_maps: tuple[Tensor, ...]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    def keys(self) -> list[str]:
        """The names of the parts that are not None."""
        return [name for name, part in zip(self._fields, self, strict=True) if part is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        """The parts that are not None."""
        return tuple(part for part in self if part is not None)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        return dict(zip(self.keys(), self.to_tuple(), strict=True))[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()


class BackboneType(enum.Enum):
    """Where a backbone's modules come from, with the values that transformers uses."""

    TIMM = "timm"
    TRANSFORMERS = "transformers"


class BackboneMixin(Selects):
    """What every backbone does, mixed into an `nn.Module` that has `stem` and `stages` (one module a stage).

    A subclass takes its config and builds the stem and the first `num_built - 1` stages: later ones would cost time
    and hold parameters without a gradient. It defines `to_map` when a state is not yet a map, and `forward_stages`
    when its stages do more than follow each other.
    """

    config_class: ClassVar[type[BackboneConfigMixin]]
    backbone_type: ClassVar[BackboneType] = BackboneType.TRANSFORMERS
    has_attentions: ClassVar[bool] = False
    needs_a_cell: ClassVar[bool] = False  # whether an image must be as large as the coarsest built stride
    config: BackboneConfigMixin
    preprocessing: Preprocessing
    stem: nn.Module
    stages: nn.ModuleList

    def __init__(self, config: BackboneConfigMixin) -> None:
        super().__init__()
        if not isinstance(config, self.config_class) or config.model_type != self.config_class.model_type:
            raise ValueError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, not a {type(config).__name__}"
            )
        self.config = copy.deepcopy(config)  # a backbone owns its config
        self.preprocessing = Preprocessing()
        self.num_built = config.stage_names.index(config.selection.features[-1]) + 1
        strides = [stage.stride for stage in config.stages[: self.num_built]]
        self._least_side = max(strides) if self.needs_a_cell else 1

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
        return tuple(self.to_map(states[names.index(name)], name, size) for name in self.selection.features)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """Compute the selected maps of a batch of normalised images (B, num_channels, H, W), any height and width.

        Returns a `BackboneOutput`, or its `to_tuple()` with `return_dict=False`. An image that is too small to have a
        map is padded with zeros. Raises ValueError for another number of channels, or when attentions are requested
        of an architecture that has none.
        """
        channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"{self.config.model_type}: pixel_values of shape {tuple(pixel_values.shape)} must be "
                f"(batch, {channels}, height, width)"
            )
        pixel_values = self.fill_up(pixel_values)
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
        output = BackboneOutput(maps, tuple(states) if output_hidden_states else None, attentions)
        return output if return_dict else output.to_tuple()

    def fill_up(self, x: Tensor) -> Tensor:
        """Pad images (B, num_channels, H, W) that are too small to have a map with zeros, right and bottom."""
        (height, width), least = x.shape[2:], self._least_side
        if height < least or width < least:
            return F.pad(x, (0, max(least - width, 0), 0, max(least - height, 0)))
        return x

    def forward_with_filtered_kwargs(self, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` without the arguments that it does not know, nor attentions where there are none."""
        known = inspect.signature(self.forward).parameters
        if not self.has_attentions:
            kwargs.pop("output_attentions", None)
        return self(*args, **{key: value for key, value in kwargs.items() if key in known})  # type: ignore[operator]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device  # type: ignore[attr-defined]

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
    def selection(self) -> Selection:  # type: ignore[override]
        """The selected stages; `out_features`, `out_indices` and `out_strides` are its parts."""
        return self.config.selection

    def select(
        self,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        """Select other maps of the stages that are built; ValueError, and no change, for a stage that is not."""
        config = copy.deepcopy(self.config)
        config.select(out_features, out_indices, out_strides)
        last = config.out_features[-1]
        if config.stage_names.index(last) >= self.num_built:
            end = config.stage_names[self.num_built - 1]
            raise ValueError(
                f"{config.model_type}: {last} was not built: this backbone ends at {end}, the last stage requested "
                f"when it was made; make a new one with out_features={config.out_features}"
            )
        self.config = config
        self.use_maps(config.out_features)

    def use_maps(self, names: Sequence[str]) -> None:
        """Say which of the selected maps are read: modules that serve only the others stop training."""
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
        """The stage of every parameter: 0 for the stem; modules after the last stage count with it."""
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

        A module before the blocks of a stage (a downsampling) counts with the first of them; one after them (the norm
        of its map) counts with the last.
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
        """Recompute the activations inside the blocks for the gradient instead of keeping them."""
        for _, block in self.blocks():
            if not isinstance(block.forward, Recomputed):
                block.forward = Recomputed(block)


class Backbone(BackboneMixin, nn.Module):
    """Base of the native backbones: the contract, with weights from and to the Hub's layout through `keys`."""

    keys: ClassVar[KeyMap]
    hosts: ClassVar[Mapping[str, Host]] = {}  # bigger models whose checkpoints hold this backbone, by model_type
    adaptable: ClassVar[frozenset[str]] = frozenset()  # fields that `adapt_weight` can make up for
    load_report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls: type[B],
        checkpoint: str | os.PathLike[str] | Checkpoint,
        *,
        config: Any = None,
        revision: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        sha256: str | Mapping[str, str] | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        **fields: Any,
    ) -> B:
        """This class with a checkpoint's weights, config and preprocessing: plain PyTorch, in eval mode.

        The arguments are those of `AutoBackbone.from_pretrained`, which also makes the network faster. Raises
        ValueError for the checkpoint of another architecture, and for anything that does not fit.
        """
        cast = checked_dtype(dtype or torch_dtype)
        refuse_attention(attn_implementation)
        cls.config_class.refuse_unknown(fields)
        hub = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token, "sha256": sha256}
        net = cls._loaded(checkpoint, config, fields, {"revision": revision, **hub})
        return net if cast is None else net.to(cast)

    @classmethod
    def _loaded(cls: type[B], checkpoint: Any, config: Any, fields: Mapping[str, Any], hub: Mapping[str, Any]) -> B:
        files = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint, **hub)
        if config is None:
            stated = cls.read_config(f"{files.source}: config.json", files.needed_config())
            return cls.from_files(files, stated.config(fields), stated)
        given = cls.read_config("config", plain_config(config))
        if isinstance(config, (Mapping, BackboneConfigMixin)):
            cls.config_class.refuse_unknown(given.unknown)
        return cls.from_files(files, given.config(fields))

    @classmethod
    def read_config(cls, label: str, data: Mapping[str, Any]) -> StatedConfig:
        """What the data of a `config.json` states for this class; ValueError, after `label`, when it is of another."""
        return stated_config(label, data, cls.config_class, cls.keys, cls.hosts)

    @classmethod
    def from_files(
        cls: type[B], files: Checkpoint, config: BackboneConfigMixin, stated: StatedConfig | None = None
    ) -> B:
        """A backbone of this config with the weights and the preprocessing of an opened checkpoint, in eval mode.

        `stated` says by which names its weights go; without it, the table that knows most of the names is used.
        """
        tables = [cls.keys, *(host.keys for host in cls.hosts.values())] if stated is None else [stated.keys]
        with LateDraws():  # draws only the weights that the checkpoint lacks
            net = cls(config)
            net.load_report = load_weights(net, tables, files)
        net.load_report.unknown_config = [] if stated is None else stated.unknown
        if (preprocessing := read_preprocessing(files)) is not None:
            net.preprocessing, net.load_report.preprocessing = preprocessing, "preprocessor_config.json"
        return net.eval()

    def adapt_weight(self, name: str, weight: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
        """A checkpoint's weight made to fit `shape`, and how; None when it cannot be adapted."""
        if name.startswith("stem.") and weight.ndim == 4 and len(shape) == 4:
            same = weight.shape[0] == shape[0] and weight.shape[2:] == shape[2:]
            if same and shape[1] == self.config.num_channels:
                return adapt_input_channels(weight, shape[1]), f"{weight.shape[1]} input channels to {shape[1]}"
        return None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder in the Hub's layout: the config, the preprocessing, the weights of all built stages."""
        config = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        save_checkpoint(folder, config, self.preprocessing, hub_tensors(self, self.keys))


_DTYPES = ("float16", "bfloat16", "float32", "float64")


def checked_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype or its name as a dtype; ValueError for one that weights cannot have."""
    name = str(given).removeprefix("torch.")
    if given is not None and name not in _DTYPES:
        raise ValueError(f"dtype={name!r}{nearest(name, _DTYPES)}")
    return None if given is None else getattr(torch, name)


def refuse_attention(implementation: str | None) -> None:
    """Raise ValueError for a way to compute attention that a network of ours does not use."""
    if implementation not in (None, "sdpa"):
        raise ValueError(
            f"attn_implementation={implementation!r} cannot be chosen: attention is torch's "
            "scaled_dot_product_attention; leave it out, or say 'sdpa'"
        )
