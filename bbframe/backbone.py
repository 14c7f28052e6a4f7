"""The contract of every backbone: a selection of declared stages, a map (B, C, H, W) of each.

The names and the behaviour are those of transformers' backbones; `strides` and `out_strides` are added.
"""

from __future__ import annotations

import copy
import enum
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from bbframe.config import BackboneConfigMixin
from bbframe.layers.attention import recorded_attentions
from bbframe.layers.recompute import Recomputed
from bbframe.preprocessing import Preprocessing
from bbframe.selection import Stage

__all__ = ["BackboneConfigMixin", "BackboneMixin", "BackboneOutput", "BackboneType", "Stage"]


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


class BackboneMixin:
    """What every backbone does, mixed into an `nn.Module` that has `stem` and `stages` (one module a stage).

    A subclass takes its config and builds the stem and the first `num_built - 1` stages: those behind the last
    selected one would cost time, and have parameters without a gradient. It defines `to_map` when a state is no map
    yet, and `forward_stages` when its stages do more than follow each other.
    """

    config_class: ClassVar[type[BackboneConfigMixin]]
    backbone_type: ClassVar[BackboneType] = BackboneType.TRANSFORMERS
    has_attentions: ClassVar[bool] = False
    needs_a_cell: ClassVar[bool] = False  # of the coarsest stride that is built, to have a map at all
    config: Any
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
        self.num_built = max(config.stage_names.index(name) for name in config.out_features or ()) + 1
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
        return tuple(self.to_map(states[names.index(name)], name, size) for name in self.config.out_features)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> BackboneOutput:
        """Compute the selected maps of a batch of normalised images (B, num_channels, H, W), any height and width.

        An image that is too small to have a map is filled up. Raises ValueError for another number of channels, or
        when attentions are asked of an architecture without.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"{self.config.model_type}: pixel_values of shape {tuple(pixel_values.shape)} must be "
                f"(batch, {self.config.num_channels}, height, width)"
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
        return BackboneOutput(maps, tuple(states) if output_hidden_states else None, attentions)

    def fill_up(self, x: Tensor) -> Tensor:
        """Images (B, num_channels, H, W), with zeros on the right and at the bottom where they are too small to have
        a map."""
        (height, width), least = x.shape[2:], self._least_side
        if height < least or width < least:
            return F.pad(x, (0, max(least - width, 0), 0, max(least - height, 0)))
        return x

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
