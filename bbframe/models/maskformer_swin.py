"""Swin as MaskFormer keeps it (Cheng et al., "Per-Pixel Classification is Not All You Need", arXiv:2107.06278)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from bbframe.keymap import Host, KeyMap
from bbframe.models.swin import NAMES, SwinBackbone, SwinConfig
from bbframe.registry import register


@dataclass(kw_only=True)
class MaskFormerSwinConfig(SwinConfig):
    """Swin's config; the defaults are Swin-T's."""

    model_type: ClassVar[str] = "maskformer-swin"
    ignored_fields: ClassVar[frozenset[str]] = SwinConfig.ignored_fields | {"in_channels", "pretrain_img_size"}


def _from_maskformer(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of the Swin in a MaskFormer, all of whose stages it uses; None when another backbone is in there."""
    inner = data.get("backbone_config")
    if not isinstance(inner, Mapping) or inner.get("model_type") not in ("swin", "maskformer-swin"):
        return None
    left_out = {"out_features", "out_indices", *MaskFormerSwinConfig.foreign_keys(inner)}
    config = MaskFormerSwinConfig.from_dict({key: value for key, value in inner.items() if key not in left_out})
    config.out_features = config.stage_names[1:]
    return {**inner, **config.to_dict()}


@register
class MaskFormerSwinBackbone(SwinBackbone):
    """Swin, but for the stem's map, which has no norm of its own, and for the names of its weights."""

    config_class = MaskFormerSwinConfig
    keys = KeyMap(
        NAMES
        + """
        hidden_states_norms.{}                                                    norms.stage{+1}
        """,
        saved_prefix="model.",
        unprefixed=["hidden_states_norms.*"],
        ignored=["layernorm.*", "*.relative_position_index"],
        fresh=["hidden_states_norms.*"],
    )
    _heads = "pixel_level_module.decoder.* transformer_module.* class_predictor.* mask_embedder.* criterion.*".split()
    hosts = {"maskformer": Host(keys.inside("pixel_level_module.encoder.", ignored=_heads), _from_maskformer)}

    def __init__(self, config: MaskFormerSwinConfig):
        super().__init__(config)
        self.norms["stem"] = nn.Identity()
