"""DINOv2 with registers (Darcet et al., "Vision Transformers Need Registers", arXiv:2309.16588)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from bbframe import ranges
from bbframe.keymap import KeyMap
from bbframe.layers.tokens import PatchTokens
from bbframe.models.dinov2 import HUB_NAMES, Dinov2Backbone, Dinov2Config
from bbframe.registry import register
from bbframe.schema import Range


@dataclass(kw_only=True)
class Dinov2WithRegistersConfig(Dinov2Config):
    """DINOv2 with `num_register_tokens` further tokens, in which the network may keep what belongs to no patch.

    The defaults are those of the Hub's files; every published checkpoint has patches of 14 pixels and says so.
    """

    model_type: ClassVar[str] = "dinov2_with_registers"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"interpolate_antialias", "interpolate_offset"})
    use_mask_token: ClassVar[bool] = True  # type: ignore[misc]  # no field here: every checkpoint holds one

    patch_size: ranges.PatchSize = 16
    num_register_tokens: Annotated[int, Range(0, 1024, "tokens")] = 4


@register
class Dinov2WithRegistersBackbone(Dinov2Backbone):
    """DINOv2 with registers; every map has the stride of the patches, and registers have no part in it.

    Hidden states are tokens (B, 1 + R + N, C): the class token, R registers, the patches. Attentions are
    (B, heads, 1 + R + N, 1 + R + N) a block. Positions are resized with antialias, as the authors do, unlike DINOv2's.
    """

    config_class = Dinov2WithRegistersConfig
    config: Dinov2WithRegistersConfig
    keys = KeyMap(HUB_NAMES, prefixes=["dinov2_with_registers."], ignored=["classifier.*"])

    def tokens(self, config: Any, **options: Any) -> PatchTokens:
        return super().tokens(config, num_registers=config.num_register_tokens, antialias=True)
