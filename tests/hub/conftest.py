"""A small network with weights of its own, and the folder that it was saved to."""

from __future__ import annotations

import pytest

from tests.tiny import shaken, tiny


@pytest.fixture
def net():
    return shaken(tiny("resnet"))


@pytest.fixture
def folder(net, tmp_path):
    net.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"
