"""ViTPose and ViTPose+ (Xu et al., "Vision Transformer for Generic Body Pose Estimation", arXiv:2212.04246)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import PlainConfig
from bbframe.hub.nested_config import nested_config
from bbframe.keymap import Host, KeyMap
from bbframe.layers.attention import Attention
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.positions import patch_grid
from bbframe.layers.tokens import PlacedPatches
from bbframe.layers.transformer import TransformerBlock
from bbframe.models.dinov2 import AUTHORS_NAMES
from bbframe.registry import register
from bbframe.schema import Range, Rate, Sides, demand


@dataclass(kw_only=True)
class VitPoseBackboneConfig(PlainConfig):
    """A plain vision transformer without a class token; the defaults are ViTPose-B's. A stage is one block.

    `image_size` is the training size that the position table belongs to. With several experts (ViTPose+) one of
    them, `dataset_index`, gives the last `part_features` channels of each perceptron. The published experts are COCO,
    AI Challenger, MPII, AP-10K, APT-36K and COCO-WholeBody.
    """

    model_type: ClassVar[str] = "vitpose_backbone"

    image_size: Sides = (256, 192)
    num_experts: Annotated[int, Range(1, 256, "experts")] = 1
    part_features: Annotated[int, Range(0, 32_768, "channels")] = 256
    dataset_index: Annotated[int, Range(0, 255)] = 0
    layer_norm_eps: ranges.Epsilon = 1e-12
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0

    def validate(self) -> None:
        super().validate()
        parts = (1, self.hidden_size - 1) if self.num_experts > 1 else (0, 32_768)
        for name, (low, high) in {"dataset_index": (0, self.num_experts - 1), "part_features": parts}.items():
            value = getattr(self, name)
            why = f"num_experts={self.num_experts} and hidden_size={self.hidden_size}"
            demand(
                low <= value <= high, f"vitpose_backbone: {name}", value, f"must be within {low}..{high} with {why}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of patches that the position table belongs to."""
        return patch_grid(self.image_size, self.patch_size)


class Stem(PlacedPatches):
    """Patches of the image, padded by 2 pixels, with positions: (B, num_channels, H, W) -> (B, N, C).

    The position of the class token of pretraining is added to every patch.
    """

    def __init__(self, config: VitPoseBackboneConfig):
        super().__init__(config.num_channels, config.hidden_size, config.patch_size, config.grid, padding=2)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        assert self.positions is not None
        return self.dropout(super().forward(x).flatten(1, 2) + self.positions[:, :1])


class ExpertMlp(Mlp):
    """A perceptron with experts, one of which makes the last channels; the others are kept, and do not train."""

    def __init__(self, config: VitPoseBackboneConfig):
        width, part, hidden = config.hidden_size, config.part_features, int(config.hidden_size * config.mlp_ratio)
        super().__init__(width, hidden, config.hidden_act)
        self.fc2 = nn.Linear(hidden, width - part)
        self.experts = nn.ModuleList(nn.Linear(hidden, part) for _ in range(config.num_experts))
        self.index = config.dataset_index
        for index, expert in enumerate(self.experts):
            expert.requires_grad_(index == self.index)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(x))
        return torch.cat([self.fc2(x), self.experts[self.index](x)], dim=-1)


class Block(TransformerBlock):
    """A transformer block, with experts if there are several; tokens (B, N, C)."""

    def __init__(self, config: VitPoseBackboneConfig):
        width, heads, dropout = config.hidden_size, config.num_attention_heads, config.hidden_dropout_prob
        qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        attn = Attention(qkv, heads, config.attention_probs_dropout_prob, dropout)
        plain, hidden = config.num_experts == 1, int(width * config.mlp_ratio)
        mlp = Mlp(width, hidden, config.hidden_act) if plain else ExpertMlp(config)
        super().__init__(width, config.layer_norm_eps, attn, mlp, None)


@register
class VitPoseBackbone(Backbone):
    """ViTPose; every map is normalised and has the stride of the patches: (H + 4) // patch rows of an image, because
    it is padded. Hidden states are tokens (B, N, C); attentions, (B, heads, N, N) a block."""

    config_class = VitPoseBackboneConfig
    config: VitPoseBackboneConfig
    has_attentions = needs_a_cell = True
    adaptable = frozenset({"image_size", "dataset_index"})
    keys = KeyMap(
        """
        embeddings.position_embeddings                            stem.positions
        embeddings.patch_embeddings.projection                    stem.patch
        encoder.layer.{}.layernorm_before                         stages.{}.norm1
        encoder.layer.{}.attention.attention.(query|key|value)    stages.{}.attn.qkv
        encoder.layer.{}.attention.output.dense                   stages.{}.attn.proj
        encoder.layer.{}.layernorm_after                          stages.{}.norm2
        encoder.layer.{}.mlp.fc{}                                 stages.{}.mlp.fc{}
        encoder.layer.{}.mlp.experts.{}                           stages.{}.mlp.experts.{}
        layernorm                                                 norm
        """
    )
    _inside = nested_config(VitPoseBackboneConfig, free=["dataset_index"])
    hosts = {"vitpose": Host(keys.inside("backbone.", ignored=["head.*"]), _inside)}
    _authors_keys = KeyMap(
        AUTHORS_NAMES.replace("    norm ", "    last_norm ") + "blocks.{}.mlp.experts.{}  stages.{}.mlp.experts.{}",
        prefixes=["backbone."],
        ignored="cls_token keypoint_head.* associate_keypoint_heads.*".split(),
    )
    originals = (_authors_keys,)

    def __init__(self, config: VitPoseBackboneConfig):
        super().__init__(config)
        self.stem = Stem(config)
        self.stages = nn.ModuleList(Block(config) for _ in range(self.num_built - 1))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        initialise(self, config.initializer_range)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        grid = patch_grid((size[0] + 4, size[1] + 4), self.config.patch_size)
        return self.norm(state).transpose(1, 2).unflatten(2, grid)
