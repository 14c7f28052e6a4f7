"""The contract of every backbone: a selection of declared stages, a map (B, C, H, W) of each.

The names and the behaviour are those of transformers' backbones; `strides` and `out_strides` are added.
"""

from __future__ import annotations

import copy
import enum
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.config import BackboneConfigMixin
from bbframe.layers.attention import recorded_attentions
from bbframe.layers.recompute import Recomputed
from bbframe.preprocessing import Preprocessing
from bbframe.selection import Integers, Selection, Selects, Stage, StageNames


class BackboneOutput(NamedTuple):
    """What a backbone returns: a named tuple of three that also answers as transformers' outputs do.

    Names, numbers, `keys`, `values`, `items` and `get` know those that are not None.

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

    def values(self) -> tuple[Any, ...]:
        """As `to_tuple`."""
        return self.to_tuple()

    def items(self) -> list[tuple[str, Any]]:
        """The names and the parts that are not None."""
        return list(zip(self.keys(), self.to_tuple(), strict=True))

    def get(self, key: str, default: Any = None) -> Any:
        """The part of this name, `default` without one."""
        return dict(self.items()).get(key, default)

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]

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
    main_input_name: ClassVar[str] = "pixel_values"
    has_attentions: ClassVar[bool] = False
    has_class_token: ClassVar[bool] = False  # whether `class_token` finds one in the hidden states
    is_gradient_checkpointing = False
    needs_a_cell: ClassVar[bool] = False  # whether an image must be as large as the coarsest built stride
    config: BackboneConfigMixin
    stem: nn.Module
    stages: nn.ModuleList

    def __init__(self, config: BackboneConfigMixin) -> None:
        super().__init__()
        if not isinstance(config, self.config_class) or config.model_type != self.config_class.model_type:
            raise ValueError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, not a {type(config).__name__}"
            )
        self.config = copy.deepcopy(config)  # a backbone owns its config
        self._preprocessing: Preprocessing | str = Preprocessing()
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

    def class_token(self, state: Tensor, name: str) -> Tensor | None:
        """The class token (B, C) of a stage's hidden state, normalised as its map is; None without one."""
        return None

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
        if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
            kind = getattr(pixel_values, "dtype", type(pixel_values).__name__)
            raise ValueError(
                f"{self.config.model_type}: pixel_values, which are {kind}, must be a tensor of floating-point "
                "numbers: net.preprocessing([image]) makes it of an image or a path"
            )
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"{self.config.model_type}: pixel_values of shape {tuple(pixel_values.shape)} must be "
                f"(batch, {channels}, height, width)"
            )
        pixel_values = self.fill_up(pixel_values)
        if output_attentions and not self.has_attentions:
            raise ValueError(f"{self.config.model_type} has no attention maps; leave output_attentions off")
        with recorded_attentions() if output_attentions else nullcontext() as attentions:
            states = self.forward_stages(pixel_values)
        maps = self.to_maps(states, (pixel_values.shape[2], pixel_values.shape[3]))
        output = BackboneOutput(
            maps, tuple(states) if output_hidden_states else None, None if attentions is None else tuple(attentions)
        )
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
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the weights: call it on them; ValueError when the checkpoint's way is not known.

        For a network of one channel the mean and std of colours are averaged.
        """
        if isinstance(self._preprocessing, str):
            raise ValueError(self._preprocessing)
        return self._preprocessing.for_channels(1) if self.config.num_channels == 1 else self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing | str) -> None:
        self._preprocessing = preprocessing

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device  # type: ignore[attr-defined]

    # the selection, and what follows from it

    def declared_stages(self) -> tuple[Stage, ...]:
        return self.config.stages

    @property
    def selection(self) -> Selection:  # type: ignore[override]
        """The selected stages; `out_features`, `out_indices` and `out_strides` are its parts."""
        return self.config.selection

    def select(
        self, out_features: StageNames = None, out_indices: Integers = None, out_strides: Integers = None
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

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Recompute the activations inside the blocks for the gradient instead of keeping them.

        The argument is transformers'; ValueError when it asks for a reentrant one, or of a network that cannot.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ValueError("gradient_checkpointing_kwargs: use_reentrant=True cannot be honoured; leave it out")
        self._recompute(True)
        self.is_gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations inside the blocks again."""
        if self.is_gradient_checkpointing:
            self._recompute(False)
        self.is_gradient_checkpointing = False

    def _recompute(self, on: bool) -> None:
        for _, block in self.blocks():
            if on and not isinstance(block.forward, Recomputed):
                block.forward = Recomputed(block)
            elif not on and isinstance(block.forward, Recomputed):
                block.forward.undo()

    def num_parameters(self, only_trainable: bool = False) -> int:
        """The number of weights, or of those that train."""
        parameters = self.parameters()  # type: ignore[attr-defined]
        return sum(p.numel() for p in parameters if p.requires_grad or not only_trainable)
