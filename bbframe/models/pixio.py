"""Pixio (Yang et al., "In Pursuit of Pixel Supervision for Visual Pre-training", arXiv:2512.15715)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.keymap import KeyMap
from bbframe.layers.attention import Attention
from bbframe.layers.mlp import Mlp
from bbframe.layers.tokens import PatchTokens
from bbframe.layers.transformer import TransformerBlock
from bbframe.models.dinov2 import AUTHORS_NAMES, HUB_NAMES, Dinov2Backbone, Dinov2Config
from bbframe.registry import register
from bbframe.schema import Range, Sides


@dataclass(kw_only=True)
class PixioConfig(Dinov2Config):
    """A plain vision transformer with several class tokens; the defaults are Pixio-H's. A stage is one block."""

    model_type: ClassVar[str] = "pixio"
    use_swiglu_ffn: ClassVar[bool] = False  # type: ignore[misc]  # these three are no fields here
    use_mask_token: ClassVar[bool] = False  # type: ignore[misc]
    layerscale_value: ClassVar[float] = 1.0  # type: ignore[misc]

    image_size: Sides = 256
    patch_size: ranges.PatchSize = 16
    hidden_size: ranges.Width = 1280
    num_hidden_layers: ranges.Depth = 32
    num_attention_heads: ranges.Heads = 16
    n_cls_tokens: Annotated[int, Range(1, 1024, "tokens")] = 8


class Block(TransformerBlock):
    """A transformer block without layer scale; tokens (B, N, C)."""

    def __init__(self, config: PixioConfig):
        width, dropout = config.hidden_size, config.hidden_dropout_prob
        qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        attn = Attention(qkv, config.num_attention_heads, config.attention_probs_dropout_prob, dropout)
        mlp = Mlp(width, int(width * config.mlp_ratio), config.hidden_act)
        super().__init__(width, config.layer_norm_eps, attn, mlp, None, config.drop_path_rate)
        self.scale2 = nn.Dropout(dropout)  # behind the perceptron alone, not inside


@register
class PixioBackbone(Dinov2Backbone):
    """Pixio; every map has the stride of the patches. Hidden states are tokens (B, T + N, C), the T class tokens
    first, whose mean is the class token; attentions, (B, heads, T + N, T + N) a block.

    As in transformers, the norm of the maps is not the final norm of the published model: it is new, 1 and 0, for a
    checkpoint of that model, whose own norm is kept in `final_weight` and `final_bias` and has no part in any map. The
    authors' own files, which know one norm, fill both.
    """

    config_class = PixioConfig
    config: PixioConfig
    keys = KeyMap(
        HUB_NAMES.replace("{}.mlp.fc1 ", "{}.intermediate.dense ", 1)
        .replace("{}.mlp.fc2 ", "{}.output.dense ", 1)
        .replace("    layernorm ", "    encoder.layernorm ")
        + "layernorm.weight  final_weight\nlayernorm.bias  final_bias",
        fresh=["encoder.layernorm.*"],
    )
    originals = (KeyMap(AUTHORS_NAMES + "final.weight  final_weight\nfinal.bias  final_bias"),)
    in_memory = (
        (r"\blayers\.(\d+)\.", r"encoder.layer.\1."),
        *Dinov2Backbone.in_memory,
        (r"(layer\.\d+)\.layernorm_before", r"\1.norm1"),
        (r"(layer\.\d+)\.layernorm_after", r"\1.norm2"),
        (r"(layer\.\d+)\.mlp\.fc1", r"\1.intermediate.dense"),
        (r"(layer\.\d+)\.mlp\.fc2", r"\1.output.dense"),
    )

    def __init__(self, config: PixioConfig):
        super().__init__(config)
        self.register_buffer("final_weight", torch.ones(config.hidden_size))
        self.register_buffer("final_bias", torch.zeros(config.hidden_size))

    @classmethod
    def as_in_files(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """As every backbone's; transformers' backbone of Pixio has two norms, with other names in its files."""
        tensors = super().as_in_files(tensors)
        if "encoder.embeddings.cls_token" in tensors:  # in its file
            return {re.sub(r"^encoder\.(?=encoder|embeddings)", "", name): x for name, x in tensors.items()}
        if "pixio.embeddings.cls_token" in tensors:  # in memory, where the norm of the maps has no prefix
            renamed = {re.sub(r"^layernorm", "encoder.layernorm", name): x for name, x in tensors.items()}
            return {name.removeprefix("pixio."): x for name, x in renamed.items()}
        return tensors | {f"final.{name[5:]}": x for name, x in tensors.items() if name.startswith("norm.")}

    def block(self, config: PixioConfig) -> nn.Module:
        return Block(config)

    def tokens(self, config: Any, **options: Any) -> PatchTokens:
        return super().tokens(config, num_class_tokens=config.n_cls_tokens)

    def class_token(self, state: Tensor, name: str) -> Tensor:
        x = state[:, : self.config.n_cls_tokens]
        return (self.norm(x) if self.config.apply_layernorm else x).mean(1)
