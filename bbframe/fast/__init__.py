"""The arithmetic of `layers` and `models`, faster on a CPU: swapped in after construction, and out again."""

from bbframe.fast import attention, convolution, neighborhood, perceptron, product
from bbframe.fast.converter import convert, follow_device, plain

__all__ = ["convert", "follow_device", "plain"]
_ = (attention, convolution, neighborhood, perceptron, product)  # each says which forwards it has
