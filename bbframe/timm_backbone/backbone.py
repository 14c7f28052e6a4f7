"""Any network of timm (Wightman, "PyTorch Image Models", doi:10.5281/zenodo.4414861) that gives feature maps."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.backbone import Backbone
from bbframe.backbone_mixin import BackboneType
from bbframe.config import BackboneConfigMixin
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.hub.late_draws import LateDraws
from bbframe.hub.state_dict import StateDict
from bbframe.hub.stated_config import StatedConfig
from bbframe.keymap import OwnNames
from bbframe.preprocessing import Preprocessing
from bbframe.registry import register
from bbframe.timm_backbone.timm_config import TimmBackboneConfig, without_loading
from bbframe.timm_backbone.timm_network import (
    Names,
    accepted_sizes,
    adapt_grid,
    build,
    maps,
    reached_parameters,
    takes_argument,
)
from bbframe.timm_backbone.weights import fill_from_timm, load_timm_weights

_BY_SIZE = re.compile(r"bias_table|attention_biases|rel_pos|pos_embed")


@register
class TimmBackbone(Backbone):
    """A network of timm. Maps come in timm's order; hidden states are the maps of all built stages.

    What timm builds although no selected map depends on it, such as the other branches of HRNet, does not train.
    """

    config_class = TimmBackboneConfig
    config: TimmBackboneConfig
    backbone_type = BackboneType.TIMM
    keys = OwnNames()

    def __init__(self, config: TimmBackboneConfig):
        import timm

        super().__init__(config)
        net = self.config.network
        self._taps = {index: tap for index, tap in self.config.taps.items() if index < self.num_built}
        self._tap_names = [self.config.stage_names[index] for index in self._taps]
        self._names = Names(net)
        self._backbone = build(net, self._taps)
        self._sizes = accepted_sizes(self.config.backbone, self.config.stated)
        self._reached = reached_parameters(net, self._taps)
        if self._reached is not None:
            reached = zip(self._tap_names, self._reached.values(), strict=True)
            needed = set().union(*(parameters for name, parameters in reached if name in self.out_features))
            for name, parameter in self._backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in needed)
        if config.freeze_batch_norm_2d:
            self._backbone = timm.layers.freeze_batch_norm_2d(self._backbone)
        self.preprocessing = dataclasses.replace(Preprocessing.from_timm(net.cfg), size=net.input_size)
        if config.use_pretrained_backbone:
            self.config = without_loading(config)  # its weights are this module's from now on
            self.load_report = load_timm_weights(self, self._names)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        if self._sizes is None:
            return maps(self._backbone, x)
        H, W = x.shape[2:]
        size = self._sizes.padded(H, W)
        if size is None:
            raise ValueError(self._refusal(H, W))
        if size == (H, W):
            return maps(self._backbone, x)
        states = maps(self._backbone, F.pad(x, (0, size[1] - W, 0, size[0] - H)))
        strides = [self.config.stages[index].stride for index in self._taps]
        return [y[:, :, : -(-H // s), : -(-W // s)] for y, s in zip(states, strides, strict=True)]

    def _refusal(self, height: int, width: int) -> str:
        name, (h, w) = self.config.backbone, self.config.network.input_size
        side = -(-max(height, width) // self.config.stages[-1].stride) * self.config.stages[-1].stride
        takes = takes_argument(self.config.network, "img_size")
        how = f"set backbone.model_args={{img_size: [{side}, {side}]}}, or make the images" if takes else "make them"
        return (
            f"timm_backbone: {name} takes images of {h} x {w} pixels, smaller ones padded, not {height} x {width}; "
            f"{how} no larger (data.image_size, or data.max_size with boxes)"
        )

    def to_maps(self, states: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        return tuple(states[self._tap_names.index(name)] for name in self.config.out_features)

    @classmethod
    def _loaded(cls, checkpoint: Any, config: Any, fields: Mapping[str, Any], hub: Mapping[str, Any]) -> TimmBackbone:
        """A folder that `save_pretrained` wrote, or timm's weights by timm's name."""
        name = None if isinstance(checkpoint, Checkpoint) else os.fspath(checkpoint)
        if name is not None and os.path.isdir(name):
            checkpoint, name = Checkpoint(name, **hub), f"local-dir:{name}"
        if config is not None or (isinstance(checkpoint, Checkpoint) and "model_type" in (checkpoint.config or {})):
            return super()._loaded(checkpoint, config, fields, hub)
        given = {key: value for key, value in fields.items() if value is not None}
        return cls.from_timm(TimmBackboneConfig.from_dict({"backbone": name, **given}), hub)

    @classmethod
    def from_files(
        cls, files: Checkpoint, config: BackboneConfigMixin, stated: StatedConfig | None = None
    ) -> TimmBackbone:
        return super().from_files(files, without_loading(config), stated)

    @classmethod
    def from_state(cls, state: StateDict, config: BackboneConfigMixin, stated: StatedConfig) -> TimmBackbone:
        """A backbone with weights in memory, by timm's names or by those of `save_pretrained`, in eval mode."""
        if any(name.startswith("_backbone.") for file in state.weights for name in file.tensors):
            return cls.from_files(state, config, stated)
        with LateDraws():
            net = cls(without_loading(config))
            net.load_report = fill_from_timm(net, net._names, state)
        return net.eval()

    @classmethod
    def from_timm(cls, config: TimmBackboneConfig, hub: Mapping[str, Any]) -> TimmBackbone:
        """A backbone with the weights that timm's registry, a folder or the Hub has for it, in eval mode.

        `hub` are options of `Checkpoint`. Raises ValueError when a tensor is missing, unexpected or of another shape.
        """
        with LateDraws():
            net = cls(without_loading(config))
            net.load_report = load_timm_weights(net, net._names, **hub)
        return net.eval()

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        net, given = self.config.network, made_with and made_with.network.input_size
        if given and given != net.input_size:
            if self._names.theirs(name)[0] == "pos_embed":
                return adapt_grid(net, weight, given)
            if _BY_SIZE.search(name) and weight.shape == shape and given[0] != given[1]:
                raise ValueError(
                    f"timm_backbone: {name} belongs to images of {given[0]} x {given[1]} and cannot be resized to "
                    f"{net.input_size[0]} x {net.input_size[1]}; leave img_size as the checkpoint has it"
                )
        return super().adapt_weight(name, weight, shape, made_with)

    def reads_pixels(self, name: str) -> bool:
        first = self.config.network.cfg.get("first_conv") or ()
        stems = [first] if isinstance(first, str) else first
        return self._names.theirs(name)[0] in [f"{conv}.weight" for conv in stems]

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

    def _recompute(self, on: bool) -> None:
        """timm's own recomputation; ValueError where this network has none."""
        network = self._backbone if hasattr(self._backbone, "set_grad_checkpointing") else self._backbone.model
        try:
            network.set_grad_checkpointing(on)
        except (AttributeError, AssertionError) as error:
            name = self.config.backbone
            raise ValueError(f"timm_backbone: {name} cannot recompute its activations; switch that off") from error
