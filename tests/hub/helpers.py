"""What tests of weights files compare."""

from __future__ import annotations

import pytest
import torch


def same(one, two):
    states = one.state_dict(), two.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def refused(make):
    """The one line that a call ends in."""
    with pytest.raises(ValueError, match=r"^\S") as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def prefixed(tensors, prefix):
    return {prefix + name: value for name, value in tensors.items()}
