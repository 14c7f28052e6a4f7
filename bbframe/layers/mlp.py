"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn

from bbframe.layers.activation import activation


class Mlp(nn.Module):
    """Linear, activation, linear, over the last dimension."""

    def __init__(self, channels: int, hidden: int, act: str):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = activation(act)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
