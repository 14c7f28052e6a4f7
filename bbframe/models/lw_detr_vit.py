"""The encoder of LW-DETR (Chen et al., "A Transformer Replacement to YOLO", arXiv:2406.03459)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import PlainConfig
from bbframe.hub.nested_config import nested_config
from bbframe.keymap import Host, KeyMap
from bbframe.layers.attention import Attention, QkvLinear
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.positions import patch_grid
from bbframe.layers.tokens import PlacedPatches
from bbframe.layers.transformer import TransformerBlock
from bbframe.layers.windows import block_states, map_of_windows, to_whole_windows, windows_by_count
from bbframe.registry import register
from bbframe.schema import Range, Rate, Sides


@dataclass(kw_only=True)
class LwDetrViTConfig(PlainConfig):
    """A plain vision transformer whose blocks attend globally or inside windows. A stage is one block.

    `num_windows`, a square number, share the image evenly, whatever its size; `window_block_indices` counts the
    blocks with windows from 0. The position table belongs to `pretrain_image_size`; no map depends on `image_size`.
    """

    model_type: ClassVar[str] = "lw_detr_vit"
    derived_fields: ClassVar[tuple[str, ...]] = ("num_windows_side", "stage_names")

    image_size: Sides = 256
    pretrain_image_size: Sides = 224
    layer_norm_eps: ranges.Epsilon = 1e-6
    use_absolute_position_embeddings: bool = True
    num_windows: Annotated[int, Range(1, 65_536, "windows")] = 16
    window_block_indices: tuple[Annotated[int, Range(0, 255)], ...] = ()
    cae_init_values: ranges.LayerScale = 0.1
    dropout_prob: Rate = 0.0

    def validate(self) -> None:
        super().validate()
        self.refuse_missing_blocks("window_block_indices")
        if (side := self.num_windows_side) ** 2 != self.num_windows:
            near = f"{side**2} or {(side + 1) ** 2}"
            raise ValueError(f"lw_detr_vit: num_windows={self.num_windows} must be a square number, such as {near}")

    @property
    def num_windows_side(self) -> int:
        """The number of windows along each side of an image."""
        return math.isqrt(self.num_windows)

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of patches that the position table belongs to."""
        return patch_grid(self.pretrain_image_size, self.patch_size)


class Stem(PlacedPatches):
    """Patches with positions, if any, in windows: (B, num_channels, H, W) -> (B, windows, N, C)."""

    def __init__(self, config: LwDetrViTConfig):
        grid = config.grid if config.use_absolute_position_embeddings else None
        super().__init__(config.num_channels, config.hidden_size, config.patch_size, grid)
        self.count = config.num_windows_side

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(to_whole_windows(x, self.patch.stride[0], self.count))
        return windows_by_count(x, self.count)


class Block(TransformerBlock):
    """A transformer block with layer scale; tokens (..., N, C)."""

    def __init__(self, config: LwDetrViTConfig):
        width, dropout = config.hidden_size, config.dropout_prob
        qkv = QkvLinear(width, "qv" if config.qkv_bias else "")
        attn = Attention(qkv, config.num_attention_heads, dropout, 0.0)
        mlp = Mlp(width, int(width * config.mlp_ratio), config.hidden_act, dropout)
        super().__init__(width, config.layer_norm_eps, attn, mlp, config.cae_init_values)


_NAMES = """
    embeddings.position_embeddings                              stem.positions
    embeddings.projection                                       stem.patch
    encoder.layer.{}.layernorm_before                           stages.{}.norm1
    encoder.layer.{}.attention.(q_proj|k_proj|v_proj).weight    stages.{}.attn.qkv.weight
    encoder.layer.{}.attention.<q_proj|v_proj>.bias             stages.{}.attn.qkv.<q|v>_bias
    encoder.layer.{}.attention.o_proj                           stages.{}.attn.proj
    encoder.layer.{}.gamma_1                                    stages.{}.scale1.weight
    encoder.layer.{}.layernorm_after                            stages.{}.norm2
    encoder.layer.{}.intermediate.fc{}                          stages.{}.mlp.fc{}
    encoder.layer.{}.gamma_2                                    stages.{}.scale2.weight
    """

_DETECTOR_NAMES = (  # in the Hub's files of the whole detector
    _NAMES.replace("(q_proj|k_proj|v_proj)", "attention.(query|key|value)")
    .replace("q_proj", "attention.query")
    .replace("v_proj", "attention.value")
    .replace("o_proj", "output")
)


@register
class LwDetrViTBackbone(Backbone):
    """LW-DETR's encoder; every map has the stride of the patches. An image whose patches the windows do not share
    evenly has the maps of the image with zeros at the right and at the bottom, cut to its size.

    Hidden states are tokens in windows (B, windows, N, C); attentions, (B, windows, heads, N, N) a block with
    windows, (B, heads, windows * N, windows * N) a global one.
    """

    config_class = LwDetrViTConfig
    config: LwDetrViTConfig
    has_attentions = needs_a_cell = True
    adaptable = frozenset({"image_size", "pretrain_image_size"})
    keys = KeyMap(_NAMES)
    _prefixes = ("model.", "backbone.backbone.", "backbone.conv_encoder.model.")
    _heads = ("class_embed.*", "bbox_embed.*", "query_feat.*")
    _rest = ("backbone.projector.*", "decoder.*", "enc_*", "reference_point_embed.*", *_heads)
    _detectors = KeyMap(_DETECTOR_NAMES).inside(*_prefixes, ignored=_rest)
    hosts = {"lw_detr": Host(_detectors, nested_config(LwDetrViTConfig))}
    _authors_keys = KeyMap(
        """
        pos_embed                   stem.positions
        patch_embed.proj            stem.patch
        blocks.{}.norm{}            stages.{}.norm{}
        blocks.{}.attn.qkv.weight   stages.{}.attn.qkv.weight
        blocks.{}.attn.<q|v>_bias   stages.{}.attn.qkv.<q|v>_bias
        blocks.{}.attn.proj         stages.{}.attn.proj
        blocks.{}.mlp.fc{}          stages.{}.mlp.fc{}
        blocks.{}.gamma_{}          stages.{}.scale{}.weight
        """,
        prefixes=["backbone.0.encoder."],
        ignored=["backbone.0.projector.*", "transformer.*", "refpoint_embed.*", *_heads],
    )
    originals = (_authors_keys, keys.inside(*_prefixes, ignored=_rest))  # and those of a detector in memory

    def __init__(self, config: LwDetrViTConfig):
        super().__init__(config)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(Block(config) for _ in range(self.num_built - 1))
        initialise(self, config.initializer_range)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        return block_states(self.stem(x), self.stages, self.config.window_block_indices)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        grid = patch_grid(size, self.config.patch_size)
        return map_of_windows(state, self.config.num_windows_side, *grid).permute(0, 3, 1, 2)
