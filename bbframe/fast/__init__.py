"""The arithmetic of `layers` and `models`, faster on a CPU: swapped in after construction, and out again."""

from bbframe.fast import attention, convolution, neighborhood, perceptron, product
from bbframe.fast.converter import convert, plain

__all__ = ["convert", "plain"]
_ = (attention, convolution, neighborhood, perceptron, product)  # each says which forwards it has
