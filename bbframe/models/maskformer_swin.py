"""Swin as MaskFormer keeps it (Cheng et al., "Per-Pixel Classification is Not All You Need", arXiv:2107.06278)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bbframe.auto import register
from bbframe.keymap import KeyMap
from bbframe.models.swin import SwinBackbone, SwinConfig


@dataclass(kw_only=True)
class MaskFormerSwinConfig(SwinConfig):
    """Swin's config; the defaults are Swin-T's."""

    model_type: ClassVar[str] = "maskformer-swin"
    ignored_fields: ClassVar[frozenset[str]] = SwinConfig.ignored_fields | {"in_channels", "pretrain_img_size"}


@register
class MaskFormerSwinBackbone(SwinBackbone):
    """Swin, but for the stem's map, which has no norm of its own, and for the names of its weights."""

    config_class = MaskFormerSwinConfig
    keys = KeyMap(
        """
        embeddings.patch_embeddings.projection                                    stem.patch
        embeddings.norm                                                           stem.norm
        embeddings.position_embeddings                                            stem.positions
        encoder.layers.{}.blocks.{}.layernorm_before                              stages.{}.blocks.{}.norm1
        encoder.layers.{}.blocks.{}.attention.self.relative_position_bias_table   stages.{}.blocks.{}.position_bias
        encoder.layers.{}.blocks.{}.attention.self.(query|key|value)              stages.{}.blocks.{}.attn.qkv
        encoder.layers.{}.blocks.{}.attention.output.dense                        stages.{}.blocks.{}.attn.proj
        encoder.layers.{}.blocks.{}.layernorm_after                               stages.{}.blocks.{}.norm2
        encoder.layers.{}.blocks.{}.intermediate.dense                            stages.{}.blocks.{}.mlp.fc1
        encoder.layers.{}.blocks.{}.output.dense                                  stages.{}.blocks.{}.mlp.fc2
        encoder.layers.{}.downsample.norm                                         stages.{+1}.downsample.norm
        encoder.layers.{}.downsample.reduction                                    stages.{+1}.downsample.reduction
        hidden_states_norms.{}                                                    norms.stage{+1}
        """,
        saved_prefix="model.",
        unprefixed=["hidden_states_norms.*"],
        ignored=["layernorm.*", "*.relative_position_index"],
        fresh=["hidden_states_norms.*"],
    )

    def __init__(self, config: MaskFormerSwinConfig):
        super().__init__(config)
        self.norms["stem"] = nn.Identity()
