"""The encoder of RF-DETR (Robinson et al., "RF-DETR: Neural Architecture Search for Real-Time Detection
Transformers", arXiv:2511.09554): DINOv2 with windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from bbframe.config import SELECTION
from bbframe.hub.nested_config import nested_config
from bbframe.keymap import Host, KeyMap
from bbframe.layers.positions import patch_grid
from bbframe.layers.tokens import PatchTokens
from bbframe.layers.windows import block_states, map_of_windows, to_whole_windows, windows_by_count
from bbframe.models.dinov2 import HUB_NAMES, Dinov2Backbone, Dinov2Config
from bbframe.registry import register
from bbframe.schema import Range
from bbframe.selection import Integers, StageNames


@dataclass(kw_only=True)
class RfDetrDinov2Config(Dinov2Config):
    """DINOv2's config with `num_windows` along each side of the image, in which some blocks attend.

    `window_block_indexes` counts these blocks from 0. Left out, it is made once, with the config: the blocks up to
    the last selected stage whose number no selected stage has. Another selection later changes none of them, nor
    does one that is made of a checkpoint's stages: its own config settles which of its blocks have windows.
    """

    model_type: ClassVar[str] = "rf_detr_dinov2"
    ignored_fields: ClassVar[frozenset[str]] = frozenset({"num_register_tokens"})  # 0 in a whole detector's file

    num_windows: Annotated[int, Range(1, 256, "windows")] = 4
    window_block_indexes: tuple[Annotated[int, Range(0, 255)], ...] | None = None

    def __post_init__(self, out_features: StageNames, out_indices: Integers, out_strides: Integers) -> None:
        super().__post_init__(out_features, out_indices, out_strides)
        if self.window_block_indexes is None:
            chosen = [self.stage_names.index(name) for name in self.out_features]
            self.window_block_indexes = tuple(index for index in range(chosen[-1]) if index not in chosen)

    def validate(self) -> None:
        super().validate()
        self.refuse_missing_blocks("window_block_indexes")

    @classmethod
    def settled(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        needed = {"num_hidden_layers", "window_block_indexes", *SELECTION}
        config = cls.from_dict({key: value for key, value in data.items() if key in needed})
        return {**data, "window_block_indexes": config.window_block_indexes}


class WindowTokens(PatchTokens):
    """Patches in windows, each behind a class token of its own: (B, num_channels, H, W) -> (B, windows, 1 + N, C)."""

    def __init__(self, *size: Any, count: int, **options: Any):
        super().__init__(*size, **options)
        self.count = count  # of windows along each side

    def forward(self, x: Tensor) -> Tensor:
        patch = self.patch.stride[0]
        x = to_whole_windows(x, patch, self.count)
        grid = patch_grid((x.shape[2], x.shape[3]), patch)
        x = super().forward(x)
        windows = windows_by_count(x[:, 1:].unflatten(1, grid), self.count)
        return torch.cat([x[:, None, :1].expand(-1, self.count**2, -1, -1), windows], dim=2)


_NAMES = (
    HUB_NAMES.replace("attention.attention.(query|key|value)", "attention.(q_proj|k_proj|v_proj)")
    .replace("attention.output.dense", "attention.o_proj")
    .replace("mlp.weights_in", "mlp.(gate_proj|up_proj)")
    .replace("mlp.weights_out", "mlp.down_proj")
)


@register
class RfDetrDinov2Backbone(Dinov2Backbone):
    """RF-DETR's encoder; every map has the stride of the patches. An image whose patches the windows do not share
    evenly has the maps of the image with zeros at the right and at the bottom, cut to its size.

    Hidden states are tokens in windows (B, windows, 1 + N, C), each behind a class token; `class_token` is the mean of
    them. Attentions are (B, windows, heads, 1 + N, 1 + N) a block with windows, (B, heads, M, M) a global one, with M
    tokens in all windows.
    """

    config_class = RfDetrDinov2Config
    token_class = WindowTokens
    config: RfDetrDinov2Config
    keys = KeyMap(_NAMES, spare=["embeddings.mask_token"])
    _heads = "class_embed.* bbox_embed.* query_feat.* transformer.* refpoint_embed.* segmentation_head.*".split()
    _detectors = KeyMap(HUB_NAMES, spare=["embeddings.mask_token"], fresh=["embeddings.mask_token"]).inside(
        "model.", "backbone.0.encoder.encoder.", ignored=["backbone.0.projector.*", *_heads]
    )
    _in_memory = keys.inside(
        *("model.", "backbone.backbone."),
        ignored=[
            *("backbone.projector.*", "decoder.*", "enc_*", "reference_point_embed.*", "blocks.*"),
            *("query_features_*", "spatial_features_*", "segmentation_bias", *_heads),
        ],
    )
    hosts = {"rf_detr": Host(_detectors, nested_config(RfDetrDinov2Config))}
    originals = (_detectors, _in_memory)  # of its authors, and of transformers without its conversion to their names
    in_memory = ()

    def tokens(self, config: Any, **options: Any) -> PatchTokens:
        return super().tokens(config, count=config.num_windows, antialias=True)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        return block_states(self.stem(x), self.stages, self.config.window_block_indexes or ())

    def to_map(self, state: Tensor, name: str, size: tuple[int, int]) -> Tensor:
        x = self.norm(state) if self.config.apply_layernorm else state
        grid = patch_grid(size, self.config.patch_size)
        return map_of_windows(x[:, :, 1:], self.config.num_windows, *grid).permute(0, 3, 1, 2)

    def class_token(self, state: Tensor, name: str) -> Tensor:
        return super().class_token(state.transpose(1, 2), name).mean(1)
