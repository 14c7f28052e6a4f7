"""What can be told apart from the first of a table, by which measurement."""

import pytest

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
    assert verdict.by.endswith("mAP is no mean over images")


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
