"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn

from bbframe.layers.activation import activation


class Mlp(nn.Module):
    """Linear, activation, linear, over the last dimension; `dropout` follows the activation and the second linear."""

    def __init__(self, channels: int, hidden: int, act: str, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = activation(act)
        self.fc2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.act(self.fc1(x)))
        return self.dropout(self.fc2(x))
