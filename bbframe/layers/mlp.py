"""The perceptrons of transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn

from bbframe.layers.activation import activation


class Mlp(nn.Module):
    """Linear, activation, linear, over the last dimension; `dropout` follows the activation and the second linear."""

    def __init__(self, channels: int, hidden: int, act: str, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden, bias)
        self.act = activation(act)
        self.fc2 = nn.Linear(hidden, channels, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.act(self.fc1(x)))
        return self.dropout(self.fc2(x))


class GatedMlp(nn.Module):
    """A perceptron whose hidden layer is act(gate) * x (Shazeer, arXiv:2002.05202), over the last dimension.

    One product makes gate and x, in this order. With SiLU as activation it is SwiGLU.
    """

    def __init__(self, channels: int, hidden: int, act: str, bias: bool = True):
        super().__init__()
        self.fc_in = nn.Linear(channels, 2 * hidden, bias)
        self.act = activation(act)
        self.fc_out = nn.Linear(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.fc_in(x).chunk(2, dim=-1)
        return self.fc_out(self.act(gate) * x)
