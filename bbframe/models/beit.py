"""BEiT (Bao et al., "BEiT: BERT Pre-Training of Image Transformers", arXiv:2106.08254)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import BackboneConfigMixin
from bbframe.hub.adapted_tables import adapt_offsets
from bbframe.keymap import KeyMap
from bbframe.layers.attention import Attention, QkvLinear
from bbframe.layers.initialise import initialise, truncated_normal
from bbframe.layers.mlp import Mlp
from bbframe.layers.positions import RelativeBias, patch_grid, token_index
from bbframe.layers.residual import DropPath, LayerScale, rising_rates
from bbframe.layers.tokens import PatchTokens
from bbframe.registry import register
from bbframe.schema import Range, Rate, Sides
from bbframe.selection import Stage, align


@dataclass(kw_only=True)
class BeitConfig(BackboneConfigMixin):
    """A plain vision transformer with layer scale; the defaults are BEiT-B's, without positions. A stage is one block.

    The tables of positions belong to `image_size`. `add_fpn` makes a pyramid of the four selected maps.
    """

    model_type: ClassVar[str] = "beit"
    attribute_map: ClassVar[Mapping[str, str]] = {"segmentation_indices": "out_indices"}
    ignored_fields: ClassVar[frozenset[str]] = frozenset(
        "auxiliary_channels auxiliary_concat_input auxiliary_loss_weight auxiliary_num_convs pool_scales "
        "semantic_loss_ignore_index use_auxiliary_head use_mean_pooling vocab_size".split()
    )

    num_channels: ranges.Bands = 3
    image_size: Sides = 224
    patch_size: ranges.PatchSize = 16
    hidden_size: ranges.Width = 768
    num_hidden_layers: ranges.Depth = 12
    num_attention_heads: ranges.Heads = 12
    intermediate_size: Annotated[int, Range(1, 131_072, "channels")] = 3072
    hidden_act: ranges.Activation = "gelu"
    layer_scale_init_value: ranges.LayerScale = 0.1
    layer_norm_eps: ranges.Epsilon = 1e-12
    use_absolute_position_embeddings: bool = False
    use_relative_position_bias: bool = False
    use_shared_relative_position_bias: bool = False
    use_mask_token: bool = False
    add_fpn: bool = False
    reshape_hidden_states: Literal[True] = True  # maps are always (B, C, H, W)
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.1
    initializer_range: ranges.Deviation = 0.02

    def validate(self) -> None:
        self.refuse_no_multiple("hidden_size", "num_attention_heads")
        if self.add_fpn and self.patch_size % 4:
            raise ValueError(f"beit: patch_size={self.patch_size} must be a multiple of 4 with add_fpn=true")

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of patches that the tables of positions belong to."""
        return patch_grid(self.image_size, self.patch_size)

    @property
    def stages(self) -> tuple[Stage, ...]:
        strides = {f"stage{i}" if i else "stem": self.patch_size for i in range(self.num_hidden_layers + 1)}
        if self.add_fpn:  # each selected map has its own stride in the pyramid
            strides.update(zip(self.selection.features, self.selection.strides, strict=True))
        return tuple(Stage(name, self.hidden_size, stride) for name, stride in strides.items())

    def select(
        self,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        if not self.add_fpn:
            super().select(out_features, out_indices, out_strides)
            return
        selection = align("beit", self.stages, out_features, out_indices, None)
        features, strides = list(selection.features), [self.patch_size * factor // 4 for factor in (1, 2, 4, 8)]
        if len(features) != 4 or out_strides not in (None, strides, tuple(strides)):
            raise ValueError(
                f"beit: add_fpn=true makes maps of strides {strides} from four stages, such as "
                f"out_indices={[self.num_hidden_layers * i // 4 for i in (1, 2, 3, 4)]}; given are "
                f"out_features={features} and out_strides={out_strides}"
            )
        self.selection = selection._replace(strides=tuple(strides))


class Block(nn.Module):
    """A transformer block with layer scale; tokens (B, 1 + N, C).

    `shared` is the bias of all blocks; a block's own one is made for `grid` and its `index`.
    """

    def __init__(self, config: BeitConfig, drop_path: float):
        super().__init__()
        width, heads, dropout = config.hidden_size, config.num_attention_heads, config.hidden_dropout_prob
        scale = config.layer_scale_init_value
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = Attention(QkvLinear(width, "qv"), heads, config.attention_probs_dropout_prob, dropout)
        self.bias = RelativeBias(config.grid, heads) if config.use_relative_position_bias else None
        self.scale1 = LayerScale(width, scale) if scale > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, config.intermediate_size, config.hidden_act)
        self.dropout = nn.Dropout(dropout)  # behind the perceptron alone, not inside
        self.scale2 = LayerScale(width, scale) if scale > 0 else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, shared: Tensor | None, grid: tuple[int, int], index: Tensor | None) -> Tensor:
        bias = shared
        if self.bias is not None:
            bias = self.bias(grid, index) if shared is None else self.bias(grid, index) + shared
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), bias)))
        return x + self.drop_path(self.scale2(self.dropout(self.mlp(self.norm2(x)))))


class Pyramid(nn.ModuleList):
    """Four levels, for maps (B, C, H, W): 4, 2, 1 and 1/2 times their resolution."""

    def __init__(self, width: int):
        first, second, third = (nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3))
        finest = nn.Sequential(first, nn.BatchNorm2d(width), nn.GELU(), second)
        super().__init__([finest, nn.Sequential(third), nn.Identity(), nn.MaxPool2d(2)])
        self.read = [True] * 4

    def select(self, read: list[bool]) -> None:
        """Train the levels that are read as those before did, and no others."""
        trainable = all(p.requires_grad for level in compress(self, self.read) for p in level.parameters())
        for level, is_read in zip(self, read, strict=True):
            level.requires_grad_(trainable and is_read)
        self.read = read


@register
class BeitBackbone(Backbone):
    """BEiT; every map has the stride of the patches, but for those of a pyramid. Hidden states are tokens
    (B, 1 + N, C), the class token first; attentions, (B, heads, 1 + N, 1 + N) a block."""

    config_class = BeitConfig
    config: BeitConfig
    has_attentions = has_class_token = needs_a_cell = True
    adaptable = frozenset({"image_size"})
    keys = KeyMap(
        """
        embeddings.cls_token                                             stem.cls_token
        embeddings.mask_token                                            stem.mask_token
        embeddings.position_embeddings                                   stem.positions
        embeddings.patch_embeddings.projection                           stem.patch
        encoder.relative_position_bias.relative_position_bias_table      bias.table
        encoder.layer.{}.layernorm_before                                stages.{}.norm1
        encoder.layer.{}.attention.attention.(query|key|value).weight    stages.{}.attn.qkv.weight
        encoder.layer.{}.attention.attention.query.bias                  stages.{}.attn.qkv.q_bias
        encoder.layer.{}.attention.attention.value.bias                  stages.{}.attn.qkv.v_bias
        encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table stages.{}.bias.table
        encoder.layer.{}.attention.output.dense                          stages.{}.attn.proj
        encoder.layer.{}.lambda_1                                        stages.{}.scale1.weight
        encoder.layer.{}.layernorm_after                                 stages.{}.norm2
        encoder.layer.{}.intermediate.dense                              stages.{}.mlp.fc1
        encoder.layer.{}.output.dense                                    stages.{}.mlp.fc2
        encoder.layer.{}.lambda_2                                        stages.{}.scale2.weight
        fpn1.{}                                                          pyramid.0.{}
        fpn2.{}                                                          pyramid.1.{}
        """,
        prefixes=["beit."],
        spare=["embeddings.mask_token", "fpn?.*"],  # checkpoints of segmentation have a pyramid
        ignored="*.relative_position_index layernorm.* pooler.* classifier.* *_head.*".split(),
    )
    in_memory = (
        (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"(layer\.\d+\.attention)\.q_proj", r"\1.attention.query"),
        (r"(layer\.\d+\.attention)\.k_proj", r"\1.attention.key"),
        (r"(layer\.\d+\.attention)\.v_proj", r"\1.attention.value"),
        (r"(layer\.\d+\.attention)\.o_proj", r"\1.output.dense"),
        (r"(layer\.\d+)\.relative_position_bias\.", r"\1.attention.attention.relative_position_bias."),
        (r"^(\w+\.)*shared_position_bias\.", r"\1encoder.relative_position_bias."),
        (r"(layer\.\d+)\.mlp\.fc1", r"\1.intermediate.dense"),
        (r"(layer\.\d+)\.mlp\.fc2", r"\1.output.dense"),
    )

    def __init__(self, config: BeitConfig):
        super().__init__(config)
        width, grid = config.hidden_size, config.grid if config.use_absolute_position_embeddings else None
        self.stem = PatchTokens(config.num_channels, width, config.patch_size, grid, config.hidden_dropout_prob)
        if config.use_mask_token:  # kept for the Hub's sake: no map depends on it
            self.stem.register_buffer("mask_token", torch.zeros(1, 1, width))
        (rates,) = rising_rates(config.drop_path_rate, (config.num_hidden_layers,))
        blocks = [Block(config, rate) for rate in rates[: self.num_built - 1]]
        self.stages = nn.ModuleList(blocks)
        shared = config.use_shared_relative_position_bias and self.num_built > 1
        self.bias = RelativeBias(config.grid, config.num_attention_heads) if shared else None
        self.pyramid = Pyramid(width) if config.add_fpn else None
        initialise(self, config.initializer_range)
        for depth, block in enumerate(blocks, start=1):  # section 2.5 of the paper
            for last in (block.attn.proj, block.mlp.fc2):
                truncated_normal(last.weight, config.initializer_range / math.sqrt(2 * depth))

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        config, size = self.config, (x.shape[2], x.shape[3])
        grid = patch_grid(size, config.patch_size)
        relative = config.use_relative_position_bias or config.use_shared_relative_position_bias
        index = token_index(grid, x.device) if relative else None
        shared = self.bias(grid, index) if self.bias is not None else None
        states = [self.stem(x)]
        for stage in self.stages:
            states.append(stage(states[-1], shared, grid, index))
        return states

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return state[:, 1:].transpose(1, 2).unflatten(2, patch_grid(size, self.config.patch_size))

    def class_token(self, state: Tensor, name: str) -> Tensor:
        return state[:, 0]

    def to_maps(self, states: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        maps = super().to_maps(states, size)
        if self.pyramid is None:
            return maps
        return tuple(level(x.contiguous()) for level, x in zip(self.pyramid, maps, strict=True))

    def use_maps(self, names: Sequence[str]) -> None:
        super().use_maps(names)
        if self.pyramid is not None:
            self.pyramid.select([name in names for name in self.out_features])

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        if name.endswith("bias.table"):
            return adapt_offsets(weight, shape, self.config.grid, made_with and made_with.grid)
        return super().adapt_weight(name, weight, shape, made_with)
