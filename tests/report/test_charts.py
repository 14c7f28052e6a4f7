"""Charts: each is drawn, whatever the data, and shows what it says."""

import csv
import time

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.axes import Axes
from matplotlib.image import imread

from bbframe.report.charts import CostPoint, accuracy_against_gmacs, learning_curves, lower_is_better
from bbframe.report.confusion_matrix import confusion_matrix


def texts(figure):
    """All words on a figure."""
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts, axes.xaxis.label, axes.yaxis.label]
        found += [text.get_text() for text in ticks]
    return " | ".join(found)


def sides(path):
    """(height, width) of a picture that is not empty."""
    pixels = imread(path)
    assert pixels.std() > 0.01
    return pixels.shape[:2]


def write_metrics(path, rows):
    rows = list(rows)
    columns = ["epoch", "step", *dict.fromkeys(key for row in rows for key in row if key not in ("epoch", "step"))]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def epochs(losses, accuracies):
    """The rows of an EpochTable."""
    for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1):
        row = {"epoch": epoch, "step": 2 * epoch, "lr-AdamW": 0.1}
        yield {**row, "train/loss": loss, "val/loss": loss, "val/accuracy": accuracy}


@pytest.mark.parametrize(
    ("losses", "accuracies", "best"),
    [
        ([2.0, 1.0, 1.5], [0.1, 0.75, 0.5], "0.7500 in epoch 2"),
        ([2.0], [0.125], "0.1250 in epoch 1"),
        ([2.0, "nan", 1.0], [0.25, "nan", 0.5], "0.5000 in epoch 3"),
        ([2.0, "inf"], [0.25, 0.125], "0.2500 in epoch 1"),
        (["nan", "nan"], ["nan", "nan"], None),
    ],
)
def test_the_best_epoch_is_marked(tmp_path, drawn, losses, accuracies, best):
    write_metrics(tmp_path / "metrics.csv", epochs(losses, accuracies))
    learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", test={"accuracy": 0.875, "f1": 0.1})
    words = texts(drawn[0])
    assert "test accuracy 0.8750" in words
    assert f"best: {best}" in words if best else "no finite values" in words
    sides(tmp_path / "curves.png")


def test_the_best_loss_is_the_lowest(tmp_path, drawn):
    write_metrics(tmp_path / "metrics.csv", epochs([2.0, 1.0, 1.5], [0.1, 0.2, 0.3]))
    learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", metric="val/loss")
    assert "best: 1.0000 in epoch 2" in texts(drawn[0])
    assert len(drawn[0].axes) == 1
    assert lower_is_better("val/loss")
    assert not lower_is_better("val/accuracy")


def test_training_without_validation_has_a_loss_alone(tmp_path, drawn):
    write_metrics(tmp_path / "metrics.csv", [{"epoch": e, "step": e, "train/loss": 1.0 - e / 10} for e in (1, 2, 3)])
    learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert [line.get_label() for line in axes.lines] == ["training"]


def test_a_wide_range_is_logarithmic(tmp_path, drawn):
    rows = [{"epoch": e, "step": e, "train/loss": 10.0**-e} for e in (1, 2, 3)]
    write_metrics(tmp_path / "metrics.csv", rows)
    learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert axes.lines[0].get_ydata() == pytest.approx([0.1, 0.01, 0.001])
    assert axes.get_yscale() == "log"
    assert "mathdefault" not in texts(drawn[0])


def test_an_empty_table_is_a_picture_too(tmp_path):
    write_metrics(tmp_path / "metrics.csv", [])
    learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert min(sides(tmp_path / "curves.png")) > 100


def test_the_confusion_matrix_shows_shares_by_row(tmp_path, drawn):
    matrix = np.array([[3.0, 1, 0], [0, 0, 0], [0, 90, 10]])
    confusion_matrix(matrix, ["cat", "cost_$5$", "猫"], tmp_path / "confusion.png")
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0, 0.9, 0.1]])
    assert sorted(text.get_text() for text in axes.texts) == ["1", "10", "3", "90"]
    assert "12.50% of 104 images right" in texts(drawn[0])
    assert "cost_$5$" in texts(drawn[0])


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_few_classes_have_their_counts_in_the_cells(tmp_path, drawn, classes):
    confusion_matrix(np.eye(classes) * 7, [f"class {i}" for i in range(classes)], tmp_path / "confusion.png")
    assert len(drawn[0].axes[0].texts) == classes
    sides(tmp_path / "confusion.png")


@pytest.mark.parametrize("classes", [31, 1000])
def test_many_classes_have_a_list_of_mistakes(tmp_path, drawn, classes):
    matrix = 40 * np.eye(classes)
    matrix[7, 3], matrix[classes - 1, 9] = 30, 10
    start = time.process_time()
    confusion_matrix(matrix, [f"a rather long name of class {i}" for i in range(classes)], tmp_path / "confusion.png")
    assert time.process_time() - start < 5
    shown, listed = drawn[0].axes[0], drawn[0].axes[1].texts[0].get_text().splitlines()
    assert not shown.texts
    assert len(listed) == 2
    assert listed[0].startswith("30  ")
    assert listed[0].endswith("(43%)")
    assert listed[1].startswith("10  ")
    pixels = shown.images[0].get_array()
    assert len(pixels) <= 250
    assert (pixels == np.float64(10 / 50)).sum() == 1
    height, width = sides(tmp_path / "confusion.png")
    assert width < 2 * height < 2500


def point(label, gmacs, mean, half=None, over=""):
    return CostPoint(label, gmacs, mean, half and mean - half, half and mean + half, over)


def test_a_sweep_is_drawn_with_labels_that_do_not_cover_each_other(tmp_path, drawn):
    names = ["resnet", "convnextv2", "dinov2", "resnet out_indices=[3,4]", "convnextv2 out_indices=[1,3]", "swin"]
    rows = [point(name, 0.01 * 1.5**i, 0.97 + 0.002 * (i % 3), 0.001, "seeds") for i, name in enumerate(names)]
    accuracy_against_gmacs(rows, "test/accuracy", tmp_path / "sweep.png")
    axes: Axes = drawn[0].axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(names)
    drawn[0].draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "test/accuracy (bars: 95 % interval over seeds)"


@pytest.mark.parametrize("costs", [[4.1], [4.1, 4.1], [0.0, 4.1]])
def test_a_sweep_of_few_points(tmp_path, drawn, costs):
    rows = [point(f"run {i}", cost, 0.5) for i, cost in enumerate(costs)]
    accuracy_against_gmacs(rows, "test/map", tmp_path / "sweep.png")
    assert drawn[0].axes[0].get_xscale() == "linear"
    assert drawn[0].axes[0].get_ylabel() == "test/map"
    sides(tmp_path / "sweep.png")


def test_no_window_and_no_state_is_left(tmp_path):
    before = dict(matplotlib.rcParams)
    confusion_matrix(np.eye(2), ["a", "b"], tmp_path / "confusion.png")
    accuracy_against_gmacs([point("a", 1.0, 0.5)], "test/map", tmp_path / "sweep.png")
    assert dict(matplotlib.rcParams) == before
    assert not Gcf.get_all_fig_managers()
