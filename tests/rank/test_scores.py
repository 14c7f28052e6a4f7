"""Scores of features: against scikit-learn, against leaving rows out one by one, and on degenerate input."""

from __future__ import annotations

import numpy as np
import pytest

from bbframe.extraction.class_scores import correct_rows, one_hot, signed_targets, top_class
from bbframe.extraction.nearest_neighbours import knn_scores
from bbframe.extraction.ridge import ridge_at_penalty, ridge_class_scores, ridge_leave_one_out
from bbframe.extraction.standardised_features import StandardisedFeatures
from bbframe.rank.discriminant import lda_scores, ledoit_wolf
from bbframe.rank.logme import logme

CLASS_SCORES = {"kNN": knn_scores, "ridge": ridge_class_scores, "LDA": lda_scores}
SHAPES = [(40, 7), (23, 60)]  # more rows than features, and fewer


def data(rows: int, channels: int, K: int = 3, apart: float = 1.0, seed: int = 0):
    """Features (n, C) float32 of K overlapping classes, in units that differ by channel, and labels."""
    random = np.random.default_rng(seed)
    y = np.arange(rows) % K
    X = random.standard_normal((rows, channels)) + apart * random.standard_normal((K, channels))[y]
    return (X * random.uniform(0.1, 10, channels) + random.uniform(-3, 3, channels)).astype(np.float32), y


def standardised(X):
    X = X.astype(np.float64)
    return (X - X.mean(0)) / X.std(0)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that every loop over blocks runs more than once."""
    monkeypatch.setattr("bbframe.extraction.standardised_features.BLOCK", 64)
    monkeypatch.setattr("bbframe.extraction.nearest_neighbours.BLOCK", 64)


@pytest.mark.parametrize("shape", SHAPES)
def test_knn_is_the_weighted_vote_of_the_nearest_others(shape, small_blocks):
    X, y = data(*shape)
    unit = X.astype(float) / np.linalg.norm(X.astype(float), axis=1, keepdims=True)
    k = min(20, np.bincount(y).min())
    expected = np.zeros((len(y), 3))
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        for j in sorted(others, key=lambda j: -(unit[i] @ unit[j]))[:k]:
            expected[i, y[j]] += np.exp(unit[i] @ unit[j] / 0.07)
    np.testing.assert_allclose(knn_scores(X, y, 3), expected / expected.sum(1, keepdims=True), rtol=1e-8, atol=1e-12)


def test_knn_does_not_depend_on_the_order_of_equal_rows():
    X, y = np.repeat(data(4, 5)[0], 10, axis=0), np.random.default_rng(1).integers(0, 3, 40)
    order = np.random.default_rng(2).permutation(40)
    np.testing.assert_allclose(knn_scores(X[order], y[order], 3), knn_scores(X, y, 3)[order], atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_leaves_each_row_out(shape, small_blocks):
    from sklearn.linear_model import Ridge

    X, y = data(*shape)
    T, Z = signed_targets(y, 3), standardised(X)
    expected = np.stack(
        [Ridge(2.0).fit(np.delete(Z, i, 0), np.delete(T, i, 0)).predict(Z[[i]])[0] for i in range(len(y))]
    )
    found = ridge_leave_one_out(X, T, [2.0])
    np.testing.assert_allclose(found.predictions, expected, rtol=1e-7, atol=1e-9)
    assert found.penalty == 2.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("apart", [0.2, 1.0])
def test_ridge_chooses_the_penalty_that_scikit_learn_chooses(shape, apart, small_blocks):
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV

    X, y = data(*shape, apart=apart)
    penalties = np.logspace(-4, 5, 19)
    oracle = RidgeClassifierCV(penalties, store_cv_results=True).fit(standardised(X), y)
    found = ridge_leave_one_out(X, signed_targets(y, 3), penalties)
    assert found.penalty == pytest.approx(oracle.alpha_)
    errors = oracle.cv_results_[:, :, list(penalties).index(oracle.alpha_)]
    np.testing.assert_allclose((signed_targets(y, 3) - found.predictions) ** 2, errors, rtol=1e-6, atol=1e-9)
    t = np.random.default_rng(3).standard_normal(len(y)) + X[:, 0]
    assert ridge_leave_one_out(X, t, penalties).penalty == pytest.approx(
        RidgeCV(penalties).fit(standardised(X), t).alpha_
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_lda_leaves_each_row_out(shape, small_blocks):
    """With the mean variance of all rows, as documented: the discriminant of the others, computed from scratch."""
    X, y = data(*shape)
    Z, found = standardised(X), lda_scores(X, y, 3, shrinkage=0.3)
    residual = Z - np.stack([Z[y == k].mean(0) for k in range(3)])[y]
    variance = (residual**2).sum() / Z.size
    for i in range(len(y)):
        Zi, yi = np.delete(Z, i, 0), np.delete(y, i)
        means = np.stack([Zi[yi == k].mean(0) for k in range(3)])
        cov = 0.7 * (Zi - means[yi]).T @ (Zi - means[yi]) / len(yi) + 0.3 * variance * np.eye(Z.shape[1])
        away = Z[i] - means
        score = np.log(np.bincount(yi) / len(yi)) - 0.5 * (away * np.linalg.solve(cov, away.T).T).sum(1)
        np.testing.assert_allclose(found[i], np.exp(score - np.logaddexp.reduce(score)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_at_one_penalty_is_ridge_leave_one_out(shape, small_blocks):
    X, y = data(*shape)
    features, T = StandardisedFeatures(X), signed_targets(y, 3)
    expected = ridge_leave_one_out(X, T, [2.0]).predictions
    np.testing.assert_allclose(ridge_at_penalty(features.outer_product, T, 2.0), expected, rtol=1e-7, atol=1e-9)


def test_lda_is_close_to_scikit_learn_left_out():
    """There each fold has a mean variance of its own, a difference of one row in 60."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    X, y = data(60, 10, apart=0.4)
    oracle = cross_val_predict(
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3),
        standardised(X),
        y,
        cv=LeaveOneOut(),
        method="predict_proba",
    )
    np.testing.assert_allclose(lda_scores(X, y, 3, shrinkage=0.3), oracle, atol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shrinkage_is_that_of_ledoit_and_wolf(shape):
    from sklearn.covariance import ledoit_wolf_shrinkage

    D = data(*shape)[0].astype(float)
    fourth = ((D**2).sum(1) ** 2).mean()
    found = ledoit_wolf(D.T @ D / len(D), fourth, *D.shape)
    assert found == pytest.approx(ledoit_wolf_shrinkage(D, assume_centered=True), rel=1e-9)
    turned = np.linalg.svd(D, full_matrices=False)
    inside = turned[0] * turned[1]  # fewer coordinates, the same lengths
    assert ledoit_wolf(inside.T @ inside / len(D), fourth, *D.shape) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("apart", [0.2, 2.0])
def test_logme_is_the_evidence_of_bayesian_ridge(shape, apart, small_blocks):
    from sklearn.linear_model import BayesianRidge

    X, y = data(*shape, apart=apart)
    X = X / np.abs(X).max()
    T = one_hot(y, 3) + np.random.default_rng(5).normal(0, 0.2, (len(y), 3))
    evidence = []
    for t in T.T:
        settings = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
        oracle = BayesianRidge(
            max_iter=5000, tol=1e-10, compute_score=True, fit_intercept=False, alpha_init=1, lambda_init=1, **settings
        ).fit(X.astype(float), t)
        evidence.append(oracle.scores_[-1] / len(y))
    assert logme(X, T).value == pytest.approx(np.mean(evidence), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("channels", [6, 150])
def test_the_rows_of_logme_tell_how_it_varies_with_the_images(channels):
    """A bootstrap of the rows has the mean and the spread of one that computes the score anew each time."""
    draw = np.random.default_rng(3)
    y = np.arange(120) % 3
    X = draw.normal(size=(120, channels))
    X[:, :3] += one_hot(y, 3) * 2
    T = one_hot(y, 3)
    value, rows = logme(X, T)
    assert rows.mean() == pytest.approx(value)
    again, quick = [], []
    for _ in range(120):
        some = np.sort(draw.integers(120, size=120))
        again.append(logme(X[some], T[some]).value)
        quick.append(rows[some].mean())
    if channels < 120:  # with more features than images a resample, which repeats images, is fitted without any error
        assert np.std(quick) == pytest.approx(np.std(again), rel=0.25)
        assert np.corrcoef(again, quick)[0, 1] > 0.9
    assert 0.001 < np.std(quick) < 0.2


def test_logme_prefers_features_that_say_something():
    X, y = data(60, 8, apart=2.0)
    noise = np.random.default_rng(1).standard_normal((60, 8))
    assert logme(X, one_hot(y, 3)).value > logme(noise, one_hot(y, 3)).value
    absent = np.column_stack([one_hot(y, 3), np.zeros(60)])
    assert logme(X, absent).value == pytest.approx(logme(X, one_hot(y, 3)).value)


@pytest.mark.parametrize("score", [knn_scores, ridge_class_scores, lda_scores], ids=CLASS_SCORES)
@pytest.mark.parametrize("shape", SHAPES)
class TestDegenerate:
    def test_constant_features_change_nothing_in_ridge_and_lda(self, score, shape):
        X, y = data(*shape)
        more = np.column_stack([X, np.full(len(X), 0.1, np.float32)])
        if score is ridge_class_scores:
            np.testing.assert_allclose(score(more, y, 3), score(X, y, 3), atol=1e-9)
        assert np.isfinite(score(more, y, 3)).all()

    def test_features_that_say_nothing_are_no_better_than_chance(self, score, shape):
        _, y = data(*shape)
        for X in (np.zeros(shape, np.float32), np.full(shape, 1e5, np.float32)):
            scores = score(X, y, 3)
            assert np.isfinite(scores).all()
            assert correct_rows(scores, y).mean() < 0.5

    def test_duplicated_rows_are_recognised(self, score, shape):
        X, y = data(*shape, apart=3.0)
        scores = score(np.concatenate([X, X]), np.concatenate([y, y]), 3)
        assert correct_rows(scores, np.concatenate([y, y])).mean() > 0.9

    def test_identical_rows_in_each_class_are_recognised(self, score, shape):
        means, y = data(3, shape[1])[0], np.arange(shape[0]) % 3
        assert correct_rows(score(means[y], y, 3), y).all()

    def test_a_class_with_one_image_is_never_right(self, score, shape):
        X, y = data(*shape, apart=3.0)
        y[0] = 3
        scores = score(X, y, 4)
        assert np.isfinite(scores).all()
        assert top_class(scores)[0] != 3

    def test_absent_classes_are_never_named(self, score, shape):
        X, y = data(*shape)
        scores = score(X, y, 9)
        assert scores.shape == (len(y), 9)
        assert top_class(scores).max() < 3
        np.testing.assert_array_equal(top_class(scores), top_class(score(X, y, 3)))

    def test_the_order_of_the_classes_changes_nothing(self, score, shape):
        X, y = data(*shape)
        np.testing.assert_allclose(score(X, 2 - y, 3), score(X, y, 3)[:, ::-1], atol=1e-9)

    def test_what_is_wrong_is_said_in_one_line(self, score, shape, request):
        X, y = data(*shape)
        name = request.node.callspec.id.split("-")[-1]
        with pytest.raises(
            ValueError, match=rf"^{name} needs images of two classes or more, but all .* of class 2;.*$"
        ):
            score(X, np.full(len(y), 2), 3)
        with pytest.raises(ValueError, match=rf"^{name}: labels must lie in 0..2, not in 0..3$"):
            score(X, np.arange(len(y)) % 4, 3)
        X[[5, 7], 1] = np.nan, np.inf
        with pytest.raises(ValueError, match=r"^features hold 2 values that are not finite \(the first in row 5\).*$"):
            score(X, y, 3)


def test_equal_scores_name_the_lowest_class_and_not_the_true_one():
    scores = np.array([[0.25, 0.75 - 1e-12, 0.75], [1 / 3, 1 / 3, 1 / 3]])
    assert top_class(scores).tolist() == [1, 0]
    assert correct_rows(scores, np.array([2, 2])).tolist() == [0, 0]


def test_float32_sums_do_not_change_the_features():
    """A mean of 4,096 with a deviation of 1: float32 squares lose it, float64 ones do not."""
    X = (4096 + data(400, 3, apart=0.0)[0] / 10).astype(np.float32)
    rows = np.concatenate([block for _, block in StandardisedFeatures(X).blocks()])
    np.testing.assert_allclose(rows.std(0), 1, atol=1e-9)


def test_parts_side_by_side_are_one_array(small_blocks):
    for shape in SHAPES:
        X, y = data(*shape)
        halves = StandardisedFeatures(X[:, :2]), StandardisedFeatures(X[:, 2:])
        joined, parts = StandardisedFeatures.joined(halves), StandardisedFeatures(X[:, :2], X[:, 2:])
        np.testing.assert_allclose(ridge_class_scores(joined, y, 3), ridge_class_scores(X, y, 3), atol=1e-9)
        np.testing.assert_allclose(ridge_class_scores(parts, y, 3), ridge_class_scores(X, y, 3), atol=1e-9)
        np.testing.assert_allclose(lda_scores(parts, y, 3), lda_scores(X, y, 3), atol=1e-9)
        np.testing.assert_allclose(knn_scores(parts, y, 3), knn_scores(X, y, 3), atol=1e-9)
        assert logme(parts, one_hot(y, 3)).value == pytest.approx(logme(X, one_hot(y, 3)).value)


def test_logme_of_degenerate_input():
    X, y = data(20, 5)
    assert np.isfinite(logme(np.zeros_like(X), one_hot(y, 3)).value)
    assert np.isfinite(logme(np.repeat(X[:2], 10, 0), one_hot(y, 3)).value)
    with pytest.raises(ValueError, match="LogME needs targets that are not all 0"):
        logme(X, np.zeros((20, 1)))
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        logme(X, one_hot(y, 3))


MEMORY = """
import resource, sys, numpy as np
from bbframe.extraction.class_scores import one_hot
from bbframe.rank.discriminant import lda_scores
from bbframe.rank.logme import logme
from bbframe.extraction.nearest_neighbours import knn_scores
from bbframe.extraction.ridge import ridge_class_scores
random = np.random.default_rng(0)
y = random.integers(0, 10, 100_000)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
X = random.standard_normal((100_000, 32), dtype=np.float32)
X[:, 0] += y
assert (knn_scores(X, y, 10).argmax(1) == y).mean() > 0.12
print("kNN", peak())
X = random.standard_normal((100_000, 1024), dtype=np.float32)
X[:, 0] += y
before = peak()
for score in (ridge_class_scores, lda_scores):
    assert (score(X, y, 10).argmax(1) == y).mean() > 0.15
logme(X, one_hot(y, 10))
print("more than the features", peak() - before)
"""


@pytest.mark.slow
def test_100_000_rows_need_little_memory():
    """GiB at the peak, in a process of its own: kNN in all, the others beyond the 0.4 GiB of the features."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    knn, more = (float(line.split()[-1]) for line in done.stdout.splitlines())
    assert knn < 1.5
    assert more < 0.6
