"""The convolutional backbones inside the checkpoints of RT-DETR, D-FINE and their successors."""

from __future__ import annotations

from bbframe.config import BackboneConfigMixin
from bbframe.hub.nested_config import nested_config
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
    usual = {name: {"model_type": backbone, "out_indices": [2, 3, 4]} for name, backbone in _DETECTORS.items()}
    return {name: Host(inside, nested_config(config_class, usual=found)) for name, found in usual.items()}
