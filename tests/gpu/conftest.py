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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a device, leave out the architectures about which the CPU has nothing new to say."""

    def new(item: pytest.Item) -> bool:
        name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
        return ASKED is not None or "device" not in getattr(item, "fixturenames", ()) or name in {None, *FEW}

    config.hook.pytest_deselected(items=[item for item in items if not new(item)])
    items[:] = [item for item in items if new(item)]
