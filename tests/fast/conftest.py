"""What the tests of the faster ways share."""

from __future__ import annotations

import pytest
import torch

from bbframe.fast import attention, converter, perceptron, probe

needs_onednn = pytest.mark.skipif(probe.LINEAR is None or probe.CONVOLUTION is None, reason="no such operation")


@pytest.fixture
def faster(monkeypatch):
    """Any CPU counts as one where oneDNN's products are the faster ones."""
    monkeypatch.setattr(probe, "FASTER", True)
    probe.check_all()
    torch.manual_seed(0)


@pytest.fixture
def small_pieces(monkeypatch):
    """Few rows and scores count as many."""
    monkeypatch.setattr(perceptron, "_ROWS", 16)
    monkeypatch.setattr(converter, "_ROWS_OF_IMAGES", 16)
    monkeypatch.setattr(attention, "_SCORES", 200)
