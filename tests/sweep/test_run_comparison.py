"""What differs between runs: configuration, metrics, images."""

import numpy as np
import pytest

from bbframe.sweep.run_comparison import compare_runs, comparison_text
from tests.sweep.run_folders import run_folder, summary, write_predictions

RIGHT = {  # ten images each: the first both miss, the second and third a alone, the last b alone
    "a": [False, False, False, *[True] * 7],
    "b": [False, True, True, *[True] * 6, False],
    "c": [False, True, True, *[True] * 7],
}


@pytest.fixture
def folders(tmp_path):
    return [
        run_folder(
            tmp_path,
            name,
            summary(name, sum(right) / 10, test={"accuracy": sum(right) / 10, "mAP": 0.5}),
            config={"optim": {"lr": 0.1 if name == "a" else 0.2}, "backbone": {"name": name}, "seed": 0},
            right=right,
        )
        for name, right in RIGHT.items()
    ]


def test_configuration_and_metrics_of_two_runs(folders):
    found = compare_runs(folders[:2])
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    assert found["configuration"] == {"optim.lr": [0.1, 0.2], "backbone.name": ["a", "b"]}
    accuracy = found["metrics"]["test.accuracy"]
    assert accuracy["values"] == [0.7, 0.8]
    assert accuracy["low"] == [pytest.approx(0.68), pytest.approx(0.78)]
    assert accuracy["difference"] == pytest.approx(0.1)
    drawn = np.random.default_rng(0).choice([0, 1, 1, -1, *[0] * 6], size=(20_000, 10)).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (accuracy["difference_low"], accuracy["difference_high"]) == (pytest.approx(low), pytest.approx(high))
    assert "difference_low" not in found["metrics"]["test.mAP"]
    assert found["metrics"]["val.accuracy"]["difference"] == pytest.approx(0.1)


def test_images_that_all_miss_and_that_each_alone_misses_the_worst_first(folders):
    images = compare_runs(folders[:2])["images"]
    assert images == {
        "count": 10,
        "all_right": 6,
        "all_miss": ["image 0"],
        "alone": {"a": ["image 2", "image 1"], "b": ["image 9"]},
    }
    three = compare_runs(folders)["images"]
    assert (three["all_miss"], three["alone"]["c"]) == (["image 0"], [])


def test_the_text_names_what_the_data_hold(folders):
    text = comparison_text(compare_runs(folders[:2]), 1)
    lines = text.splitlines()
    assert any(line.split() == ["optim.lr", "0.1", "0.2"] for line in lines)
    accuracy = next(line for line in lines if line.startswith("test.accuracy"))
    assert "0.7000 [0.6800, 0.7300]  0.8000 [0.7800, 0.8300]  +0.1000 [-" in accuracy
    assert "images: 10, all right 6" in lines
    at = lines.index("A alone misses 2, the worst first:")
    assert lines[at + 1 : at + 4] == [
        "  image 2",
        "  ... and 1 more (--images 2 or --json)",
        "B alone misses 1, the worst first:",
    ]
    assert "B - A" not in comparison_text(compare_runs(folders), 0)


def test_runs_that_tested_other_images_are_shown_and_said_not_to_be_comparable(folders, tmp_path):
    other = run_folder(tmp_path, "d", summary("swin", 0.9, test_sha256="other"), right=RIGHT["a"])
    untested = run_folder(tmp_path, "e", "no memory", ["seed=1"])
    found = compare_runs([folders[0], other])
    assert not found["same_test"]
    assert found["images"] is None
    assert "difference_low" not in found["metrics"]["test.accuracy"]
    assert comparison_text(found, 10).endswith(
        "test metrics are not comparable: d: tested other images than a (test_sha256 differs)"
    )
    text = comparison_text(compare_runs([folders[0], untested]), 10)
    assert "failed: no memory" in text
    assert text.endswith("test metrics are not comparable: e: has no test")


def test_without_predictions_the_images_are_left_out(folders):
    (folders[0] / "predictions.csv").unlink()
    found = compare_runs(folders[:2])
    assert found["images"] is None
    assert "not every run has a predictions.csv" in comparison_text(found, 10)


def test_predictions_of_other_images_are_refused(folders):
    write_predictions(folders[0], RIGHT["a"], [f"other {i}" for i in range(10)])
    with pytest.raises(ValueError, match=r"names other images than the other runs' do"):
        compare_runs(folders[:2])


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    both = [run_folder(tmp_path / sweep, "0", summary()) for sweep in ("x", "y")]
    found = compare_runs(both)
    assert [run["name"] for run in found["runs"]] == ["x/0", "y/0"]
    assert "configuration: nothing differs" in comparison_text(found, 10)


def test_control_characters_reach_no_terminal(tmp_path):
    names = [f"\x1b[31m{i}" for i in range(10)]
    both = [run_folder(tmp_path, name, summary(), right=RIGHT["a"], config={name: "\x1b"}) for name in "ab"]
    for folder in both:
        write_predictions(folder, RIGHT["a"], names)
    assert "\x1b" not in comparison_text(compare_runs(both), 10)
