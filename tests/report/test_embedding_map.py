"""The embedding map: what it shows of the features, which rows it chooses, and its photos."""

from __future__ import annotations

import base64
import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from bbframe.report import embedding_map as module
from bbframe.report.embedding_map import embedding_map, map_components, map_features, map_rows


def names(count):
    return [f"photo {i}" for i in range(count)]


@pytest.fixture(autouse=True)
def without_umap(monkeypatch):
    """UMAP is left out, whether it is installed or not."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)


def test_the_axes_are_the_principal_components_of_standardised_features():
    X = np.random.default_rng(0).normal(3, [1, 50, 0.1, 2, 7], (80, 5)).astype(np.float32) @ np.tri(5)
    wanted = (X - X.mean(0)) / X.std(0)
    U, s, _ = np.linalg.svd(wanted, full_matrices=False)
    found = embedding_map(X, np.zeros(80, int), names(80), seed=3)
    assert found["method"] == "PCA"
    points = np.array(found["points"])
    oracle = (U * s)[found["rows"], :2]
    np.testing.assert_allclose(np.abs(points), np.abs(oracle), atol=2e-3)
    np.testing.assert_allclose(found["explained"], (s**2 / (s**2).sum())[:2], atol=1e-3)


def test_a_large_offset_does_not_blur_the_map():
    """float32 would lose the variation below a mean of 10,000."""
    X = (np.random.default_rng(0).normal(0, 0.01, (50, 3)) + 1e4).astype(np.float64)
    assert np.allclose(map_features(X).std(0), 1)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (5, 1), (1, 1), (3, 2)])
def test_few_rows_or_features_have_a_map_too(shape):
    X = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = embedding_map(X, np.zeros(shape[0], int), names(shape[0]))
    assert np.isfinite(found["points"]).all()
    assert len(found["points"]) == len(found["labels"]) == len(found["names"]) == shape[0]
    assert np.isfinite(found["explained"]).all()


def test_features_that_do_not_vary_are_a_single_point():
    points, shares = map_components(map_features(np.full((9, 3), 7.1, np.float32)), seed=0)
    assert not points.any()
    assert shares == [0.0, 0.0]


def test_rows_that_are_not_finite_are_left_out():
    X = np.random.default_rng(0).normal(size=(20, 4))
    X[3, 1], X[7, 0] = np.nan, np.inf
    labels = np.arange(20) % 5
    found = embedding_map(X, labels, names(20))
    assert sorted(found["rows"]) == [i for i in range(20) if i not in (3, 7)]
    assert found["labels"] == labels[found["rows"]].tolist()
    assert found["names"] == [f"photo {i}" for i in found["rows"]]


def test_every_class_is_shown_by_its_share():
    labels = np.repeat([0, 1, 2, 3], [4000, 5000, 990, 1])
    rows = map_rows(labels, np.arange(len(labels)), 1000, seed=0)
    counts = np.bincount(labels[rows], minlength=4)
    assert counts.sum() == len(set(rows.tolist())) == 1000
    np.testing.assert_allclose(counts, [400, 500, 99, 1], atol=2)
    assert set(labels[rows[:4]]) == {0, 1, 2, 3}  # what is cut off at the end is stratified too


def test_the_choice_follows_the_seed():
    labels = np.arange(300) % 3
    rows = [map_rows(labels, np.arange(300), 30, seed).tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_a_map_has_no_more_points_than_can_be_told_apart(monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 40)
    found = embedding_map(np.random.default_rng(0).normal(size=(100, 6)), np.arange(100) % 7, names(100))
    assert len(found["points"]) == 40
    assert set(found["labels"]) == set(range(7))


def test_photos_of_any_mode_are_small_and_a_broken_one_is_left_empty():
    def read(index):
        if index == 2:
            raise OSError("truncated")
        return Image.new(("RGBA", "L", "RGB", "P", "CMYK")[index % 5], (400, 300))

    found = embedding_map(np.random.default_rng(0).normal(size=(10, 3)), np.zeros(10, int), names(10), read)
    by_row = dict(zip(found["rows"], found["thumbnails"], strict=True))
    assert by_row.pop(2) == ""
    for uri in by_row.values():
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert image.size == (module.SIDE, module.SIDE * 3 // 4)


def test_photos_stay_within_their_bytes(monkeypatch):
    monkeypatch.setattr(module, "MOST_PHOTO_BYTES", 20_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8))
    found = embedding_map(np.eye(60), np.arange(60) % 2, names(60), lambda row: noise)
    assert 0 < len(found["thumbnails"]) < len(found["points"]) == 60
    assert sum(map(len, found["thumbnails"])) <= 20_000


def test_umap_stands_beside_the_components_where_it_is_installed(monkeypatch):
    seen = {}

    class UMAP:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, features):
            seen["features"] = features
            return features[:, :2].astype(np.float32) + 100

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object() if name == "umap" else None)
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    X = np.random.default_rng(0).normal(size=(40, 5))
    found = embedding_map(X, np.arange(40) % 4, names(40), seed=7)
    assert found["method"] == "PCA, UMAP"
    assert seen["random_state"] == 7
    np.testing.assert_allclose(found["umap"], seen["features"][:, :2] + 100, rtol=1e-3)
    few = embedding_map(X[:10], np.zeros(10, int), names(10))
    assert few["method"] == "PCA"
    assert "umap" not in few
