"""The device of these tests: that of BBFRAME_TEST_DEVICE, else a CUDA device, else the CPU for a few of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

ASKED = os.environ.get("BBFRAME_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else None)
FEW = {"resnet", "swin"}  # the architectures that the ordinary suite tries on the CPU


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The device; float32 is float32 there, not TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield torch.device(ASKED or "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a device, leave out what the CPU has nothing new to say about."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if ASKED is None and "device" in getattr(item, "fixturenames", ()) and name and name not in FEW:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, or BBFRAME_TEST_DEVICE=cpu"))
