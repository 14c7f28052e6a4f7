"""The distance to the training images: in its own units, and larger for what is unlike them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from bbframe.tasks.familiarity import Familiarity, fit_familiarity


@pytest.fixture
def clouds():
    """Features (600, 6) of three classes with one covariance, which is far from round, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    spread = torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0, 0.7, 0.4]))
    centres = 4 * torch.randn(3, 6, generator=generator)
    return centres[labels] + torch.randn(600, 6, generator=generator) @ spread, labels


def test_it_is_the_mahalanobis_distance_to_the_nearest_class(clouds):
    x, labels = clouds
    found = fit_familiarity(x[:400], labels[:400], x[400:])
    means = np.stack([x[:400][labels[:400] == c].numpy().mean(0) for c in range(3)])
    rest = x[:400].numpy() - means[labels[:400]]
    inverse = np.linalg.inv(ledoit_wolf(rest, assume_centered=True)[0])
    moved = x[400:, None].numpy() - means
    plain = np.sqrt(np.einsum("nki,ij,nkj->nk", moved, inverse, moved).min(1))
    np.testing.assert_allclose(found(x[400:]).numpy() * np.quantile(plain, 0.95, method="higher"), plain, rtol=1e-3)


def test_the_threshold_leaves_one_in_twenty_out_and_what_lies_elsewhere(clouds):
    x, labels = clouds
    found = fit_familiarity(x[:400], labels[:400], x[400:])
    assert (found(x[400:]) > 1).double().mean() == pytest.approx(0.05, abs=0.005)
    away = x[400:] + torch.tensor([0, 0, 0, 0, 0, 2.5])  # less than the first axis varies, much for the last
    assert (found(away) > 1).double().mean() > 0.95


def test_units_and_rotations_of_the_features_do_not_matter(clouds):
    x, labels = clouds
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    one = fit_familiarity(x[:400], labels[:400], x[400:])(x)
    two = fit_familiarity(7 * x[:400] @ turn, labels[:400], 7 * x[400:] @ turn)(7 * x @ turn)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", ["few", "classes", "nan", "alike"])
def test_where_it_cannot_be_fitted_there_is_none(clouds, change):
    x, labels = clouds
    train, val = x[:400].clone(), x[400:]
    labels = labels[:400]
    if change == "few":
        val = val[:19]
    elif change == "classes":
        labels = torch.arange(400)
    elif change == "nan":
        train[3, 2] = torch.nan
    else:
        train, val = torch.ones(400, 6), torch.ones(200, 6)
    assert fit_familiarity(train, labels, val) is None


def test_it_moves_and_is_saved_as_a_module(clouds):
    x, labels = clouds
    found = fit_familiarity(x[:400], labels[:400], x[400:])
    again = Familiarity(**found.state_dict())
    assert torch.equal(found(x), again(x))
    assert found.half()(x).dtype == torch.float32
