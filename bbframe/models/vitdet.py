"""ViTDet (Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv:2203.16527)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from bbframe import ranges
from bbframe.backbone import Backbone
from bbframe.config import PlainConfig
from bbframe.hub.adapted_tables import adapt_kernel, adapt_line, adapt_positions
from bbframe.keymap import Host, KeyMap
from bbframe.layers.activation import activation
from bbframe.layers.attention import Attention, join_heads, split_heads
from bbframe.layers.initialise import initialise
from bbframe.layers.mlp import Mlp
from bbframe.layers.norm import LayerNorm2d
from bbframe.layers.positions import DecomposedPositions, patch_grid, resize_positions
from bbframe.layers.residual import DropPath, rising_rates
from bbframe.layers.windows import unwindow, windows
from bbframe.registry import register
from bbframe.schema import Range, Rate, Sides


@dataclass(kw_only=True)
class VitDetConfig(PlainConfig):
    """A plain vision transformer whose blocks attend globally or inside windows; the defaults are ViT-B's, all global.

    `window_block_indices` and `residual_block_indices` count blocks from 0; a stage is one block. The tables of
    relative positions belong to `image_size`, those of absolute positions to `pretrain_image_size`.
    """

    model_type: ClassVar[str] = "vitdet"

    image_size: Sides = 224
    pretrain_image_size: Sides = 224
    layer_norm_eps: ranges.Epsilon = 1e-6
    use_absolute_position_embeddings: bool = True
    use_relative_position_embeddings: bool = False
    window_size: Annotated[int, Range(0, 256, "tokens")] = 0
    window_block_indices: tuple[Annotated[int, Range(0, 255)], ...] = ()
    residual_block_indices: tuple[Annotated[int, Range(0, 255)], ...] = ()
    dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.0

    def validate(self) -> None:
        super().validate()
        self.refuse_missing_blocks("window_block_indices", "residual_block_indices")


class Stem(nn.Module):
    """Patches and, with the `grid` of a table, positions: (B, num_channels, H, W) -> (B, H / P, W / P, C)."""

    def __init__(self, num_channels: int, width: int, patch: int, grid: tuple[int, int] | None):
        super().__init__()
        self.grid = grid
        self.patch = nn.Conv2d(num_channels, width, patch, patch)
        # the first position is a class token's, which this network has not
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width)) if grid else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1).contiguous()
        if self.positions is None:
            return x
        grid = (x.shape[1], x.shape[2])
        return x + resize_positions(self.positions[:, 1:], grid, self.grid).unflatten(1, grid)


class MapAttention(Attention):
    """Self-attention between all places of maps (..., H, W, C), with relative positions if any: (..., H * W, C)."""

    def __init__(self, config: VitDetConfig, grid: tuple[int, int]):
        width, heads = config.hidden_size, config.num_attention_heads
        super().__init__(nn.Linear(width, 3 * width, bias=config.qkv_bias), heads, 0.0, 0.0)
        relative = config.use_relative_position_embeddings
        self.positions = DecomposedPositions(grid, width // heads) if relative else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x.flatten(-3, -2)), self.num_heads)
        size = q.shape[-1]
        if self.positions is not None:
            q, k, v = self.positions(q, k, v, x.shape[-3:-1])
        return self.proj(join_heads(self.attend(q, k, v, bias, scale=size**-0.5)[..., :size]))


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions at half the channels; maps (B, H, W, C)."""

    def __init__(self, config: VitDetConfig):
        super().__init__()
        width, half = config.hidden_size, config.hidden_size // 2
        self.conv1, self.norm1 = nn.Conv2d(width, half, 1, bias=False), LayerNorm2d(half, eps=1e-6)
        self.conv2, self.norm2 = nn.Conv2d(half, half, 3, padding=1, bias=False), LayerNorm2d(half, eps=1e-6)
        self.conv3, self.norm3 = nn.Conv2d(half, width, 1, bias=False), LayerNorm2d(width, eps=1e-6)
        self.act = activation(config.hidden_act)
        nn.init.zeros_(self.norm3.weight)  # the identity at first

    def forward(self, x: Tensor) -> Tensor:
        residual, x = x, x.permute(0, 3, 1, 2)
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        return residual + self.norm3(self.conv3(x)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Transformer block number `index`, in some behind it a bottleneck; maps (B, H, W, C)."""

    def __init__(self, config: VitDetConfig, index: int, drop_path: float):
        super().__init__()
        width = config.hidden_size
        self.window = config.window_size if index in config.window_block_indices else 0  # 0: the whole map
        grid = (self.window, self.window) if self.window else patch_grid(config.image_size, config.patch_size)
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = MapAttention(config, grid)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), config.hidden_act, config.dropout_prob)
        self.drop_path = DropPath(drop_path)
        self.residual = Bottleneck(config) if index in config.residual_block_indices else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        H, W, size = x.shape[1], x.shape[2], self.window
        attended = self.norm1(x)
        if size:
            attended = self.attn(windows(attended, size).unflatten(2, (size, size)))
            attended = unwindow(attended, size, H, W)
        else:
            attended = self.attn(attended).unflatten(1, (H, W))
        x = x + self.drop_path(attended)
        return self.residual(x + self.drop_path(self.mlp(self.norm2(x))))


def _from_vit(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights of a ViT, or of a masked autoencoder of one, settle."""
    fields = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu"}
    fields |= {"num_channels": 3, "patch_size": 16, "qkv_bias": True}
    stated = {name: data.get(name, default) for name, default in fields.items()}
    ratio = data.get("intermediate_size", 3072) / stated["hidden_size"]
    stated["mlp_ratio"] = int(ratio) if ratio.is_integer() else ratio
    return {**stated, "pretrain_image_size": data.get("image_size", 224)}


@register
class VitDetBackbone(Backbone):
    """ViTDet; every map has the stride of the patches. Hidden states are maps (B, H, W, C); attentions,
    (B, heads, H * W, H * W) a global block, (B, windows, heads, size**2, size**2) one with windows."""

    config_class = VitDetConfig
    config: VitDetConfig
    has_attentions = needs_a_cell = True
    adaptable = frozenset({"image_size", "pretrain_image_size", "patch_size"})
    keys = KeyMap(
        """
        embeddings.position_embeddings               stem.positions
        embeddings.projection                        stem.patch
        encoder.layer.{}.norm1                       stages.{}.norm1
        encoder.layer.{}.attention.qkv               stages.{}.attn.qkv
        encoder.layer.{}.attention.rel_pos_h         stages.{}.attn.positions.rows
        encoder.layer.{}.attention.rel_pos_w         stages.{}.attn.positions.columns
        encoder.layer.{}.attention.proj              stages.{}.attn.proj
        encoder.layer.{}.norm2                       stages.{}.norm2
        encoder.layer.{}.mlp.fc1                     stages.{}.mlp.fc1
        encoder.layer.{}.mlp.fc2                     stages.{}.mlp.fc2
        encoder.layer.{}.residual.conv{}             stages.{}.residual.conv{}
        encoder.layer.{}.residual.norm{}             stages.{}.residual.norm{}
        """,
        prefixes=["vitdet."],
    )
    _vit_keys = KeyMap(
        """
        embeddings.position_embeddings                            stem.positions
        embeddings.patch_embeddings.projection                    stem.patch
        encoder.layer.{}.layernorm_before                         stages.{}.norm1
        encoder.layer.{}.attention.attention.(query|key|value)    stages.{}.attn.qkv
        encoder.layer.{}.attention.rel_pos_h                      stages.{}.attn.positions.rows
        encoder.layer.{}.attention.rel_pos_w                      stages.{}.attn.positions.columns
        encoder.layer.{}.attention.output.dense                   stages.{}.attn.proj
        encoder.layer.{}.layernorm_after                          stages.{}.norm2
        encoder.layer.{}.intermediate.dense                       stages.{}.mlp.fc1
        encoder.layer.{}.output.dense                             stages.{}.mlp.fc2
        encoder.layer.{}.residual.conv{}                          stages.{}.residual.conv{}
        encoder.layer.{}.residual.norm{}                          stages.{}.residual.norm{}
        """,
        prefixes=["vit."],
        ignored="embeddings.cls_token embeddings.mask_token layernorm.* pooler.* classifier.* decoder.*".split(),
        spare=["embeddings.position_embeddings"],
        fresh=["*.rel_pos_?", "*.residual.*"],
    )
    _mae_keys = KeyMap(
        """
        pos_embed                           stem.positions
        patch_embed.proj                    stem.patch
        blocks.{}.norm1                     stages.{}.norm1
        blocks.{}.attn.qkv                  stages.{}.attn.qkv
        blocks.{}.attn.rel_pos_h            stages.{}.attn.positions.rows
        blocks.{}.attn.rel_pos_w            stages.{}.attn.positions.columns
        blocks.{}.attn.proj                 stages.{}.attn.proj
        blocks.{}.norm2                     stages.{}.norm2
        blocks.{}.mlp.fc1                   stages.{}.mlp.fc1
        blocks.{}.mlp.fc2                   stages.{}.mlp.fc2
        blocks.{}.residual.conv{}           stages.{}.residual.conv{}
        blocks.{}.residual.norm{}           stages.{}.residual.norm{}
        """,
        ignored="pos_embed cls_token mask_token norm.* fc_norm.* head.* decoder_*".split(),
        fresh=["*.rel_pos_?", "*.residual.*"],
    )
    originals = (_mae_keys,)  # of the authors of MAE, and of timm's plain transformers
    hosts = {"vit_mae": Host(_vit_keys, _from_vit), "vit": Host(_vit_keys, _from_vit)}

    def __init__(self, config: VitDetConfig):
        super().__init__(config)
        (rates,) = rising_rates(config.drop_path_rate, (config.num_hidden_layers,))
        grid = patch_grid(config.pretrain_image_size, config.patch_size)
        absolute = grid if config.use_absolute_position_embeddings else None
        self.stem = Stem(config.num_channels, config.hidden_size, config.patch_size, absolute)
        self.stages = nn.ModuleList(Block(config, i, rates[i]) for i in range(self.num_built - 1))
        initialise(self, config.initializer_range)

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        return state.permute(0, 3, 1, 2)

    def adapt_weight(
        self, name: str, weight: Tensor, shape: torch.Size, made_with: Any | None
    ) -> tuple[Tensor, str] | None:
        if name == "stem.positions":
            configs = (self.config, made_with or self.config)
            grid, given = (patch_grid(c.pretrain_image_size, c.patch_size) for c in configs)
            return adapt_positions(weight, shape, grid, made_with and given)
        if name.endswith((".rows", ".columns")):
            return adapt_line(weight, shape)
        if name == "stem.patch.weight" and weight.shape[:2] == shape[:2]:
            return adapt_kernel(weight, shape)
        return super().adapt_weight(name, weight, shape, made_with)
