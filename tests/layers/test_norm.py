"""Norms of maps."""

import torch

from bbframe.layers.norm import LayerNorm2d, MapNorms


def test_channels_are_normalised_at_every_place():
    norm = LayerNorm2d(6)
    x = 3 * torch.randn(2, 6, 4, 5) + 7
    y = norm(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(2, 4, 5), atol=1e-3, rtol=0)


def trainable(norms):
    return [name for name, norm in norms.items() if all(p.requires_grad for p in norm.parameters())]


def test_the_norms_of_selected_maps_train_and_follow_the_selection():
    norms = MapNorms({"stem": 4, "stage1": 8, "stage2": 8}, ["stem"], eps=1e-6)
    assert list(norms.state_dict())[::2] == ["stem.weight", "stage1.weight", "stage2.weight"]
    assert trainable(norms) == ["stem"]
    norms.select_maps(["stage1", "stage2"])
    assert trainable(norms) == ["stage1", "stage2"]


def test_frozen_norms_stay_frozen_whatever_is_selected():
    norms = MapNorms({"stem": 4, "stage1": 8}, ["stem"], eps=1e-6)
    norms.requires_grad_(False)
    norms.select_maps(["stem", "stage1"])
    assert trainable(norms) == []
