"""The convolutional backbones inside the checkpoints of RT-DETR, D-FINE and their successors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bbframe.config import BackboneConfigMixin
from bbframe.keymap import Host, KeyMap

# the detectors by model_type, and the backbone that each holds when its config names none
_DETECTORS = {
    "rt_detr": "rt_detr_resnet",
    "rt_detr_v2": "rt_detr_resnet",
    "d_fine": "hgnet_v2",
    "deimv2": "hgnet_v2",
}
# names outside of the backbone, the encoder's as the files and as transformers' modules have them
_REST = (
    "encoder_input_proj.* conv_encoder.encoder_input_proj.* encoder.encoder.* encoder.aifi.* encoder.lateral_convs.* "
    "encoder.fpn_blocks.* encoder.downsample_convs.* encoder.pan_blocks.* decoder.* decoder_input_proj.* "
    "denoising_class_embed.* enc_output.* enc_score_head.* enc_bbox_head.* class_embed.* bbox_embed.*"
).split()


def detector_hosts(keys: KeyMap, config_class: type[BackboneConfigMixin]) -> dict[str, Host]:
    """The `hosts` of a backbone with these names and this config: every detector that may hold it.

    The stages that the detector reads are selected. What it freezes in training is not frozen here.
    """
    inside = keys.inside("model.", "backbone.model.", "conv_encoder.model.", ignored=_REST)
    return {
        detector: Host(inside, partial(_backbone_of, config_class, usual)) for detector, usual in _DETECTORS.items()
    }


def _backbone_of(
    config_class: type[BackboneConfigMixin], usual: str, data: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The config of the backbone in a detector, defaults included; None when it holds another one, or one of timm."""
    inner = data.get("backbone_config")
    if inner is None and not data.get("backbone"):
        inner = {"model_type": usual, "out_indices": [2, 3, 4]}
    if not isinstance(inner, Mapping) or inner.get("model_type") != config_class.model_type:
        return None
    unknown = config_class.foreign_keys(inner)
    config = config_class.from_dict({key: value for key, value in inner.items() if key not in unknown})
    return {**inner, **config.to_dict()}
