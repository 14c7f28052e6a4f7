"""The block of plain vision transformers (Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

from torch import Tensor, nn

from bbframe.layers.residual import DropPath, LayerScale


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside its input; tokens (..., N, C).

    Both branches end in a layer scale that starts with `scale`, unless that is None, and in stochastic depth. `attn`
    is called with the normalised tokens and whatever follows the tokens in a call, such as rotations.
    """

    def __init__(
        self, width: int, eps: float, attn: nn.Module, mlp: nn.Module, scale: float | None, drop_path: float = 0.0
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attn
        self.scale1: nn.Module = nn.Identity() if scale is None else LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.scale2: nn.Module = nn.Identity() if scale is None else LayerScale(width, scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *positions: Tensor) -> Tensor:
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), *positions)))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))
