"""What can be told apart from the first of a table, by which measurement."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bbframe.sweep import ties
from bbframe.sweep.setting_results import Setting, on_shared_splits
from bbframe.sweep.ties import compare_to_first
from tests.sweep.run_folders import run_folder, summary, write_predictions


def setting(values, split=None):
    """A setting with a run for each {seed: validation accuracy}."""
    config = {"data": {"split_seed": split}}
    runs = [summary(seed=seed, val={"accuracy": value}, config=config) for seed, value in values.items()]
    return Setting("a", runs, [])


def with_test(parent, name, right, seed=1, sha="same", **more):
    """A setting of one run with predictions of its test images."""
    share = sum(right) / len(right)
    folder = run_folder(parent, name, right=right)
    run = summary(seed=seed, test={"accuracy": share}, test_sha256=sha, path=str(folder), **more)
    return Setting(name, [run], [])


def test_the_first_is_the_first():
    first = setting({1: 0.9})
    assert compare_to_first(first, first, "accuracy", "max").word == "first"


def test_a_small_steady_difference_counts_although_the_bars_overlap():
    """Paired: seeds move both settings by far more than what is between them."""
    first = setting({1: 0.90, 2: 0.80, 3: 0.70})
    other = setting({1: 0.89, 2: 0.791, 3: 0.689})
    verdict = compare_to_first(first, other, "accuracy", "max")
    assert (verdict.word, verdict.by) == ("worse", "validation, 3 common seeds")
    assert verdict.difference.mean == pytest.approx(-0.01)
    assert verdict.difference.low < -0.01 < verdict.difference.high < 0


def test_a_difference_that_changes_its_sign_is_a_tie():
    verdict = compare_to_first(setting({1: 0.9, 2: 0.8}), setting({1: 0.85, 2: 0.84, 3: 0.1}), "accuracy", "max")
    assert verdict.word == "tied"
    assert verdict.by == "validation, 2 common seeds"


def test_where_lower_is_better_a_larger_value_is_worse():
    first, other = setting({1: 0.20, 2: 0.30}), setting({1: 0.30, 2: 0.4001})
    assert compare_to_first(first, other, "accuracy", "min").word == "worse"
    assert compare_to_first(other, first, "accuracy", "min").word == "better"


def test_one_seed_is_enough_on_the_same_test_images(tmp_path):
    good, bad = [True] * 380 + [False] * 20, [True] * 340 + [False] * 60
    first, worse = with_test(tmp_path, "a", good), with_test(tmp_path, "b", bad)
    like = with_test(tmp_path, "c", [False] * 21 + [True] * 379)
    verdict = compare_to_first(first, worse, "accuracy", "max")
    assert (verdict.word, verdict.by) == ("worse", "test images of one run each")
    assert verdict.difference.mean == pytest.approx(-0.1)
    assert compare_to_first(worse, first, "accuracy", "max").word == "better"
    assert compare_to_first(first, like, "accuracy", "max").word == "tied"


def test_where_nothing_was_measured_on_both_it_cannot_be_told(tmp_path):
    right = [True, False]
    first = with_test(tmp_path, "a", right)
    verdict = compare_to_first(first, with_test(tmp_path, "b", right, sha="other"), "accuracy", "max")
    assert verdict.word == "unknown"
    assert "no run of each tested the same images" in verdict.by
    verdict = compare_to_first(first, with_test(tmp_path, "c", right), "mAP", "max")
    assert verdict.by.endswith("mAP does not follow from predictions.csv")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "predictions.csv").unlink(), "predictions.csv cannot be read: FileNotFoundError"),
        (lambda folder: (folder / "predictions.csv").write_text("image,class\na,b\n"), "lacks a column or a cell"),
        (lambda folder: (folder / "predictions.csv").write_text(""), "is empty"),
        (lambda folder: write_predictions(folder, [True, False], ["x", "y"]), "name other images"),
        (lambda folder: write_predictions(folder, [True, True]), "test accuracy is 0.5, but predictions.csv gives 1"),
    ],
)
def test_predictions_that_do_not_fit_are_no_measurement(tmp_path, spoil, said):
    first, other = (with_test(tmp_path, name, [True, False]) for name in "ab")
    spoil(tmp_path / "b")
    verdict = compare_to_first(first, other, "accuracy", "max")
    assert verdict.word == "unknown"
    assert said in verdict.by


def test_settings_that_share_no_split_are_parted_and_a_third_one_joins_them():
    one, two, both = setting({1: 0.9}, split=0), setting({1: 0.8}, split=1), setting({1: 0.8}, split=0)
    both.runs += setting({1: 0.7}, split=1).runs
    assert on_shared_splits([one, two]) == [[one], [two]]
    assert on_shared_splits([one, two, both]) == [[one, two, both]]


@pytest.mark.long
def test_f1_is_compared_by_the_same_resamples_of_both_runs(tmp_path):
    """Against drawing images and computing the F1 of both by scikit-learn."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 60)
    guesses = [np.where(random.random(60) < share, truth, random.integers(0, 3, 60)) for share in (0.9, 0.4)]
    runs = []
    for name, guess in zip("ab", guesses, strict=True):
        folder = run_folder(tmp_path, name)
        lines = [f"i{i},c{a},c{b},0.5,0.5,1" for i, (a, b) in enumerate(zip(truth, guess, strict=True))]
        header = "image,class,predicted,probability,true_probability,loss"
        (folder / "predictions.csv").write_text("\n".join([header, *lines]))
        runs.append({"path": folder, "test": {"f1": f1_score(truth, guess, average="macro")}})
    found = ties.test_difference(*runs, "f1")
    assert found.mean == pytest.approx(runs[1]["test"]["f1"] - runs[0]["test"]["f1"])
    drawn = []
    for _ in range(400):
        chosen = random.integers(0, 60, 60)
        one, other = (f1_score(truth[chosen], guess[chosen], average="macro") for guess in guesses)
        drawn.append(other - one)
    width = np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    assert found.high - found.low == pytest.approx(width, rel=0.2)
    assert found.low < found.mean < found.high


def test_runs_that_were_not_trained_are_paired_on_the_test():
    first, other = (setting({1: 0, 2: 0}) for _ in range(2))
    for one, values in ((first, (0.9, 0.8)), (other, (0.8, 0.7))):
        for run, value in zip(one.runs, values, strict=True):
            run |= {"val": {}, "test": {"accuracy": value}}
    verdict = ties.compare_to_first(first, other, "accuracy", "max", "test")
    assert (verdict.word, verdict.by) == ("worse", "test, 2 common seeds")
