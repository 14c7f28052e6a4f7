"""A map of features in two dimensions: principal components and, where umap-learn is installed, UMAP."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bbframe.report.page.thumbnails import read_thumbnails

MOST_POINTS = 1500  # of a map: more hide each other
SIDE = 96  # pixels: the longer side of a photo
MOST_PHOTO_BYTES = 3_500_000  # of all photos of a map
NEIGHBOURS = 15  # of a point, which UMAP keeps near it


def embedding_map(
    X: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    thumbnails: Callable[[int], Image.Image] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Project features (n, C) with classes (n,) to the plane, as plain data; the same `seed` gives the same map.

    At most `MOST_POINTS` rows are shown, each class by its share and with at least one while there is room; rows with
    a value that is not finite are left out. `names` says what each row is, `thumbnails` reads its image by its number.

    The result has `method` ("PCA" or "PCA, UMAP"), `rows` (the numbers of the rows that are shown), their `labels`,
    `names`, `points` [[x, y], ...] by PCA of standardised features, `explained` (the share of the variance of both
    axes), `umap` with points of its own where that is installed, and `thumbnails`: data URIs, "" for an image that
    cannot be read, fewer than points where all would take more than `MOST_PHOTO_BYTES`.
    """
    rows = map_rows(labels, np.flatnonzero(np.isfinite(X).all(axis=1)), MOST_POINTS, seed)
    features = map_features(X[rows])
    points, explained = map_components(features, seed)
    found: dict[str, Any] = {"method": "PCA", "explained": explained, "rows": rows.tolist()}
    found |= {"points": _plain(points), "labels": np.asarray(labels)[rows].tolist()}
    found["names"] = [str(names[row]) for row in rows]
    if len(rows) > NEIGHBOURS and importlib.util.find_spec("umap") is not None:
        found |= {"method": "PCA, UMAP", "umap": _plain(_umap(features, seed))}
    if thumbnails is not None:
        photos = read_thumbnails(_readable(thumbnails), rows.tolist(), MOST_PHOTO_BYTES, SIDE)
        found["thumbnails"] = [photo[0] if isinstance(photo, tuple) else "" for photo in photos]
    return found


def map_rows(labels: np.ndarray, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the `rows`, each class by its share, and one of every class before a second of any.

    The classes are mixed in the result, so that its beginning is stratified too.
    """
    rows = np.random.default_rng(seed).permutation(rows)
    own = np.asarray(labels)[rows]
    _, place, counts = np.unique(own, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    number = np.empty(len(rows), dtype=np.int64)  # of a row among those of its class
    number[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[np.argsort(number / counts[place], kind="stable")[:most]]


def map_features(X: np.ndarray) -> np.ndarray:
    """Features (n, C) as float64 with mean 0 and variance 1; one that does not vary becomes 0."""
    features = X.astype(np.float64)
    features -= features.mean(axis=0) if len(features) else 0
    scale = features.std(axis=0) if len(features) else np.ones(features.shape[1])
    varies = scale > 1e-9 * np.abs(X).max(axis=0, initial=0)
    return np.where(varies, features / np.where(varies, scale, 1), 0)


def map_components(features: np.ndarray, seed: int) -> tuple[np.ndarray, list[float]]:
    """The first two principal components (n, 2) of standardised features, and their shares of the variance.

    A component that does not exist, because there are too few features or rows, is 0.
    """
    from sklearn.decomposition import PCA

    points, shares = np.zeros((len(features), 2)), [0.0, 0.0]
    count = min(2, *features.shape)
    if not features.any() or not count:
        return points, shares
    pca = PCA(count, random_state=seed)
    points[:, :count] = pca.fit_transform(features)
    shares[:count] = [round(float(share), 4) for share in pca.explained_variance_ratio_]
    return points, shares


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():  # numba and umap speak of their own versions
        warnings.simplefilter("ignore")
        import umap

        return umap.UMAP(n_neighbors=NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1).fit_transform(features)


def _plain(points: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.5g}") for value in point] for point in points]


def _readable(read: Callable[[int], Image.Image]) -> Callable[[int], Image.Image]:
    def convert(index: int) -> Image.Image:
        image = read(index)
        return image if image.mode in ("L", "RGB") else image.convert("RGB")

    return convert
