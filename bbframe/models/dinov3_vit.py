"""DINOv3's vision transformers (Siméoni et al., "DINOv3", arXiv:2508.10104)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import PlainConfig
from bbframe.keymap import KeyMap
from bbframe.layers.attention import QkvLinear
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import GatedMlp, Mlp
from bbframe.layers.positions import patch_grid
from bbframe.layers.rotary import RotaryAttention, RotaryPositions
from bbframe.layers.tokens import PatchTokens
from bbframe.layers.transformer import TransformerBlock
from bbframe.registry import register
from bbframe.schema import Range, Rate, Sides, demand

Stretch = Annotated[float, Range(1, 100, "times")] | None


@dataclass(kw_only=True)
class DINOv3ViTConfig(PlainConfig):
    """A plain vision transformer with rotary positions; the defaults are DINOv3-S's, but for its four registers.

    A stage is one block. The last stage's map has the final norm in any case, the others with `apply_layernorm`. No
    weight depends on `image_size`. The `pos_embed_` fields stretch the coordinates of the patches in training.
    """

    model_type: ClassVar[str] = "dinov3_vit"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"return_class_token"})

    mlp_ratio: ClassVar[float] = 4  # type: ignore[misc]  # these two are no fields here
    qkv_bias: ClassVar[bool] = True  # type: ignore[misc]

    image_size: Sides = 224
    hidden_size: ranges.Width = 384
    intermediate_size: Annotated[int, Range(1, 131_072, "channels")] = 1536
    num_attention_heads: ranges.Heads = 6
    num_register_tokens: Annotated[int, Range(0, 1024, "tokens")] = 0
    use_gated_mlp: bool = False
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    layerscale_value: ranges.LayerScale = 1.0
    layer_norm_eps: ranges.Epsilon = 1e-5
    rope_theta: Annotated[float, Range(0, 1e9, low_open=True)] = 100.0
    pos_embed_shift: Annotated[float, Range(0, 10)] | None = None
    pos_embed_jitter: Stretch = None
    pos_embed_rescale: Stretch = 2.0
    apply_layernorm: bool = True
    reshape_hidden_states: Literal[True] = True  # maps are always (B, C, H, W)
    attention_dropout: Rate = 0.0
    drop_path_rate: Rate = 0.0

    def validate(self) -> None:
        unit = 4 * self.num_attention_heads
        rule = f"must be a multiple of 4 * num_attention_heads={unit}: rotary positions turn channels in fours"
        demand(self.hidden_size % unit == 0, "dinov3_vit: hidden_size", self.hidden_size, rule)

    def normalises(self, stage: str) -> bool:
        """Whether the final norm is on the map of a stage."""
        return self.apply_layernorm or stage == f"stage{self.num_hidden_layers}"


class Block(TransformerBlock):
    """A transformer block with layer scale; tokens (B, N, C), whose rotations come from `RotaryPositions`."""

    def __init__(self, config: DINOv3ViTConfig):
        width, hidden, act, bias = config.hidden_size, config.intermediate_size, config.hidden_act, config.mlp_bias
        biases = {"q": config.query_bias, "k": config.key_bias, "v": config.value_bias}
        qkv = QkvLinear(width, "".join(part for part, biased in biases.items() if biased))
        attn = RotaryAttention(qkv, config.num_attention_heads, config.attention_dropout, 0.0, config.proj_bias)
        mlp = GatedMlp(width, hidden, act, bias) if config.use_gated_mlp else Mlp(width, hidden, act, bias=bias)
        super().__init__(width, config.layer_norm_eps, attn, mlp, config.layerscale_value, config.drop_path_rate)


_HUB = """
    embeddings.cls_token                             stem.cls_token
    embeddings.mask_token                            stem.mask_token
    embeddings.register_tokens                       stem.registers
    embeddings.patch_embeddings                      stem.patch
    layer.{}.norm{}                                  stages.{}.norm{}
    layer.{}.attention.(q|k|v)_proj.weight           stages.{}.attn.qkv.weight
    layer.{}.attention.<q|k|v>_proj.bias             stages.{}.attn.qkv.<q|k|v>_bias
    layer.{}.attention.o_proj                        stages.{}.attn.proj
    layer.{}.layer_scale{}.lambda1                   stages.{}.scale{}.weight
    norm                                             norm"""
_ORIGINAL = """
    cls_token                                        stem.cls_token
    mask_token                                       stem.mask_token
    patch_embed.proj                                 stem.patch
    blocks.{}.norm{}                                 stages.{}.norm{}
    blocks.{}.attn.qkv.weight                        stages.{}.attn.qkv.weight
    blocks.{}.attn.<q|k|v>_bias                      stages.{}.attn.qkv.<q|k|v>_bias
    blocks.{}.attn.proj                              stages.{}.attn.proj
    norm                                             norm"""
_OTHERS = ("*.bias_mask", "rope_embed.periods", "local_cls_norm.*", "head.*")  # nothing that a map depends on


def _tables(hub: str, authors: str, timm: str) -> tuple[KeyMap, tuple[KeyMap, ...]]:
    """The names in the Hub's files, and in those of the authors and of timm; each is given those of a perceptron."""
    keys = KeyMap(f"{_HUB}\n{hub}", prefixes=["model.", "dinov3_vit."], ignored=["classifier.*"])
    authors += "\nstorage_tokens  stem.registers\nblocks.{}.ls{}.gamma  stages.{}.scale{}.weight"
    timm += "\nreg_token  stem.registers\nblocks.{}.gamma_{}  stages.{}.scale{}.weight"
    zero = ["mask_token", "*.[qv]_bias"]  # which timm leaves out
    of_authors = KeyMap(f"{_ORIGINAL}\n{authors}", ignored=_OTHERS)
    return keys, (of_authors, KeyMap(f"{_ORIGINAL}\n{timm}", ignored=_OTHERS, fresh=zero))


@register
class DINOv3ViTBackbone(Backbone):
    """DINOv3's vision transformers; every map has the stride of the patches.

    Hidden states are tokens (B, 1 + R + N, C): the class token, R registers, the patches. Attentions are
    (B, heads, 1 + R + N, 1 + R + N) a block. Positions are rotations, which are computed for the size at hand.
    """

    config_class = DINOv3ViTConfig
    config: DINOv3ViTConfig
    has_attentions = has_class_token = needs_a_cell = True
    adaptable = frozenset({"image_size"})
    keys, originals = _tables(
        "layer.{}.mlp.up_proj  stages.{}.mlp.fc1\nlayer.{}.mlp.down_proj  stages.{}.mlp.fc2",
        "blocks.{}.mlp.fc{}  stages.{}.mlp.fc{}",
        "blocks.{}.mlp.fc{}  stages.{}.mlp.fc{}",
    )
    _gated = _tables(
        "layer.{}.mlp.(gate|up)_proj  stages.{}.mlp.fc_in\nlayer.{}.mlp.down_proj  stages.{}.mlp.fc_out",
        "blocks.{}.mlp.(w1|w2)  stages.{}.mlp.fc_in\nblocks.{}.mlp.w3  stages.{}.mlp.fc_out",
        "blocks.{}.mlp.(fc1_g|fc1_x)  stages.{}.mlp.fc_in\nblocks.{}.mlp.fc2  stages.{}.mlp.fc_out",
    )

    def __init__(self, config: DINOv3ViTConfig):
        super().__init__(config)
        if config.use_gated_mlp:
            self.keys, self.originals = self._gated
        width, count = config.hidden_size, config.num_register_tokens
        self.stem = PatchTokens(config.num_channels, width, config.patch_size, None, 0.0, num_registers=count)
        self.stem.register_buffer("mask_token", torch.zeros(1, 1, width))  # for the Hub's sake: no map depends on it
        augmentation = (config.pos_embed_shift, config.pos_embed_jitter, config.pos_embed_rescale)
        self.rotary = RotaryPositions(width // config.num_attention_heads, config.rope_theta, *augmentation)
        self.stages = nn.ModuleList(Block(config) for _ in range(self.num_built - 1))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self._normed = any(map(config.normalises, config.out_features))
        self.norm.requires_grad_(self._normed)  # the Hub's checkpoints hold it in any case
        initialise(self, config.initializer_range)

    @classmethod
    def as_in_files(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """As every backbone's; the authors' joint bias is cut in three, and their mask drops the keys' part."""
        found = dict(tensors)
        for name in [name for name in tensors if name.endswith(".attn.qkv.bias")]:
            bias, mask = found.pop(name), tensors.get(f"{name}_mask")
            cut = (bias if mask is None else bias.masked_fill(mask == 0, 0)).chunk(3)
            parts = zip("qkv", cut, strict=True)  # a key's bias turns with the positions: it counts where it is not 0
            found |= {name.replace("qkv.b", f"{p}_b"): x for p, x in parts if p != "k" or x.any()}
        return found

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        grid = patch_grid((x.shape[2], x.shape[3]), self.config.patch_size)
        cos, sin = self.rotary(grid, self.stem.num_prefix, x.device)
        states = [self.stem(x)]
        for stage in self.stages:
            states.append(stage(states[-1], cos, sin))
        return states

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        x = self.norm(state) if self.config.normalises(name) else state
        return x[:, self.stem.num_prefix :].transpose(1, 2).unflatten(2, patch_grid(size, self.config.patch_size))

    def class_token(self, state: Tensor, name: str) -> Tensor:
        return self.norm(state[:, 0]) if self.config.normalises(name) else state[:, 0]

    def use_maps(self, names: Sequence[str]) -> None:
        super().use_maps(names)
        old, self._normed = self._normed, any(map(self.config.normalises, names))
        self.norm.requires_grad_(self._normed and (self.norm.weight.requires_grad or not old))
