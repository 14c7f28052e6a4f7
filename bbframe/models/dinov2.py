"""DINOv2 (Oquab et al., "Learning Robust Visual Features without Supervision", arXiv:2304.07193)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import PlainConfig
from bbframe.keymap import KeyMap
from bbframe.layers.attention import Attention
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import GatedMlp, Mlp
from bbframe.layers.positions import patch_grid
from bbframe.layers.tokens import PatchTokens
from bbframe.layers.transformer import TransformerBlock
from bbframe.registry import register
from bbframe.schema import Rate, Sides


@dataclass(kw_only=True)
class Dinov2Config(PlainConfig):
    """A plain vision transformer with layer scale; the defaults are DINOv2-B's. A stage is one block.

    `image_size` is the training size that the position table belongs to. `apply_layernorm` puts the final norm on
    every selected map.
    """

    model_type: ClassVar[str] = "dinov2"

    image_size: Sides = 224
    patch_size: ranges.PatchSize = 14
    use_swiglu_ffn: bool = False
    layerscale_value: ranges.LayerScale = 1.0
    layer_norm_eps: ranges.Epsilon = 1e-6
    apply_layernorm: bool = True
    reshape_hidden_states: Literal[True] = True  # maps are always (B, C, H, W)
    use_mask_token: bool = True
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of patches that the position table belongs to."""
        return patch_grid(self.image_size, self.patch_size)


class Block(TransformerBlock):
    """A transformer block with layer scale; tokens (B, N, C)."""

    def __init__(self, config: Dinov2Config):
        width, heads, dropout = config.hidden_size, config.num_attention_heads, config.hidden_dropout_prob
        hidden = int(width * config.mlp_ratio)
        gated = (int(hidden * 2 / 3) + 7) // 8 * 8  # has as many weights, in multiples of 8 channels
        qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        attn = Attention(qkv, heads, config.attention_probs_dropout_prob, dropout)
        mlp = GatedMlp(width, gated, "silu") if config.use_swiglu_ffn else Mlp(width, hidden, config.hidden_act)
        super().__init__(width, config.layer_norm_eps, attn, mlp, config.layerscale_value, config.drop_path_rate)


# the names of the weights in the Hub's files, and in those of the authors and of timm
HUB_NAMES = """
    embeddings.cls_token                                         stem.cls_token
    embeddings.mask_token                                        stem.mask_token
    embeddings.register_tokens                                   stem.registers
    embeddings.position_embeddings                               stem.positions
    embeddings.patch_embeddings.projection                       stem.patch
    encoder.layer.{}.norm1                                       stages.{}.norm1
    encoder.layer.{}.attention.attention.(query|key|value)       stages.{}.attn.qkv
    encoder.layer.{}.attention.output.dense                      stages.{}.attn.proj
    encoder.layer.{}.layer_scale1.lambda1                        stages.{}.scale1.weight
    encoder.layer.{}.norm2                                       stages.{}.norm2
    encoder.layer.{}.mlp.fc1                                     stages.{}.mlp.fc1
    encoder.layer.{}.mlp.fc2                                     stages.{}.mlp.fc2
    encoder.layer.{}.mlp.weights_in                              stages.{}.mlp.fc_in
    encoder.layer.{}.mlp.weights_out                             stages.{}.mlp.fc_out
    encoder.layer.{}.layer_scale2.lambda1                        stages.{}.scale2.weight
    layernorm                                                    norm
"""
AUTHORS_NAMES = """
    cls_token                stem.cls_token
    mask_token               stem.mask_token
    register_tokens          stem.registers
    pos_embed                stem.positions
    patch_embed.proj         stem.patch
    blocks.{}.norm{}         stages.{}.norm{}
    blocks.{}.attn.qkv       stages.{}.attn.qkv
    blocks.{}.attn.proj      stages.{}.attn.proj
    blocks.{}.ls{}.gamma     stages.{}.scale{}.weight
    blocks.{}.mlp.fc{}       stages.{}.mlp.fc{}
    blocks.{}.mlp.w12        stages.{}.mlp.fc_in
    blocks.{}.mlp.w3         stages.{}.mlp.fc_out
    norm                     norm
"""


@register
class Dinov2Backbone(Backbone):
    """DINOv2; every map has the stride of the patches. Hidden states are tokens (B, 1 + N, C), the class token first;
    attentions, (B, heads, 1 + N, 1 + N) a block."""

    config_class = Dinov2Config
    config: Dinov2Config
    stem: PatchTokens
    token_class: ClassVar[type[PatchTokens]] = PatchTokens
    has_attentions = has_class_token = needs_a_cell = True
    adaptable = frozenset({"image_size"})
    keys = KeyMap(HUB_NAMES, prefixes=["dinov2."], ignored=["classifier.*"], spare=["embeddings.mask_token"])
    originals: Sequence[KeyMap] = (
        KeyMap(AUTHORS_NAMES, ignored=["head.*"], spare=["mask_token"], fresh=["mask_token"]),
    )
    in_memory: ClassVar[Sequence[tuple[str, str]]] = (
        (r"(layer\.\d+\.attention)\.q_proj", r"\1.attention.query"),
        (r"(layer\.\d+\.attention)\.k_proj", r"\1.attention.key"),
        (r"(layer\.\d+\.attention)\.v_proj", r"\1.attention.value"),
        (r"(layer\.\d+\.attention)\.o_proj", r"\1.output.dense"),
        (r"(layer\.\d+\.mlp)\.gate_proj", r"\1.weights_in"),
        (r"(layer\.\d+\.mlp)\.up_proj", r"\1.weights_in"),
        (r"(layer\.\d+\.mlp)\.down_proj", r"\1.weights_out"),
    )

    def __init__(self, config: Dinov2Config):
        super().__init__(config)
        self.stem = self.tokens(config)
        if config.use_mask_token:  # kept for the Hub's sake: no map depends on it
            self.stem.register_buffer("mask_token", torch.zeros(1, config.hidden_size))
        self.stages = nn.ModuleList(self.block(config) for _ in range(self.num_built - 1))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm.requires_grad_(config.apply_layernorm)  # the Hub's checkpoints hold it in any case
        initialise(self, config.initializer_range)

    def block(self, config: Any) -> nn.Module:
        """One of the blocks."""
        return Block(config)

    def tokens(self, config: Any, **options: Any) -> PatchTokens:
        """The module that makes tokens of pixels; `options` are those of `token_class`."""
        width, dropout = config.hidden_size, config.hidden_dropout_prob
        return self.token_class(config.num_channels, width, config.patch_size, config.grid, dropout, **options)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        x = self.norm(state) if self.config.apply_layernorm else state
        return x[:, self.stem.num_prefix :].transpose(1, 2).unflatten(2, patch_grid(size, self.config.patch_size))

    def class_token(self, state: Tensor, name: str) -> Tensor:
        return self.norm(state[:, 0]) if self.config.apply_layernorm else state[:, 0]
