"""Initial weights."""

from __future__ import annotations

from torch import Tensor, nn

_TABLES = ("cls_token", "positions", "position_bias", "rpb")


def initialise(net: nn.Module, std: float) -> None:
    """Draw weights, class token and tables of positions from a truncated normal distribution; biases are 0.

    So begin transformers (Dosovitskiy et al., arXiv:2010.11929) and what is built like them.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            truncated_normal(module.weight, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[2] in _TABLES:
            truncated_normal(parameter, std)


def truncated_normal(weight: Tensor, std: float) -> Tensor:
    """Draw a weight from the normal distribution around 0 within -2..2."""
    if std < 0.2:  # 2 is beyond 10 standard deviations, where torch's generator draws nothing: no need to look
        return nn.init.normal_(weight, std=std)
    return nn.init.trunc_normal_(weight, std=std)


def initialise_convolutions(net: nn.Module) -> None:
    """Draw kernels so that activations keep their variance on the way back (He et al., arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
