"""Curves of precision against recall: which are drawn, and what the legend says."""

import numpy as np
import pytest

from bbframe.report.precision_recall import precision_recall

NAMES = ["cat", "dog", "traffic light"]


def curves(classes, seed=0):
    """Precision (10, 101, K) that falls with the recall and with the overlap."""
    draw, recall = np.random.default_rng(seed), np.linspace(0, 1, 101)
    reach = draw.uniform(0.3, 1.0, classes)
    overlaps = np.linspace(0.5, 0.95, 10)
    precision = np.stack([(recall[:, None] < reach * (1.4 - t)) * (1 - 0.5 * recall[:, None] * t) for t in overlaps])
    return precision, recall, overlaps.tolist()


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.long
def test_the_area_below_a_curve_is_the_average_precision_in_the_legend(tmp_path, drawn):
    precision, recall, overlaps = curves(3)
    ap = precision.mean((0, 1)).tolist()
    precision_recall(precision, recall, overlaps, NAMES[:3], ap, tmp_path / "curves.png")
    left, right = drawn[0].axes
    assert labels_of(left) == [
        f"{precision[0].mean():.3f}  IoU 0.5",
        f"{precision[5].mean():.3f}  IoU 0.75",
        f"{precision.mean():.3f}  IoU 0.5 to 0.95",
    ]
    order = sorted(range(3), key=lambda k: -ap[k])
    assert labels_of(right) == [f"{ap[k]:.3f}  {NAMES[k]}" for k in order]
    for line, k in zip(right.lines, order, strict=True):
        assert line.get_ydata().mean() == pytest.approx(ap[k])
        np.testing.assert_allclose(line.get_xdata(), recall)


def test_a_class_without_objects_is_left_out(tmp_path, drawn):
    precision, recall, overlaps = curves(3)
    expected = precision[:, :, [0, 2]].mean()
    precision[:, :, 1] = -1
    precision_recall(precision, recall, overlaps, NAMES[:3], [0.5, -1, 0.4], tmp_path / "curves.png")
    left, right = drawn[0].axes
    assert left.get_title() == "mean of 2 classes"
    assert labels_of(left)[2] == f"{expected:.3f}  IoU 0.5 to 0.95"
    assert labels_of(right) == ["0.500  cat", "0.400  traffic light"]


@pytest.mark.parametrize("classes", [1, 20, 21, 365])
def test_of_many_classes_the_best_and_the_worst_are_drawn(tmp_path, drawn, classes):
    precision, recall, overlaps = curves(classes)
    ap = precision.mean((0, 1)).tolist()
    names = [f"class {k}" for k in range(classes)]
    precision_recall(precision, recall, overlaps, names, ap, tmp_path / "curves.png")
    said = labels_of(drawn[0].axes[1])
    order = sorted(range(classes), key=lambda k: -ap[k])
    assert said[0].endswith(f"  class {order[0]}")
    assert said[-1].endswith(f"  class {order[-1]}")
    assert len(said) == (classes if classes <= 20 else 21)
    assert (f"… {classes - 20} between" in said) is (classes > 20)
    drawn[0].draw_without_rendering()
    legend = drawn[0].axes[1].get_legend().get_window_extent()
    assert legend.x1 <= drawn[0].bbox.x1
    assert 0 <= legend.y0 < legend.y1 <= drawn[0].bbox.y1


@pytest.mark.parametrize("classes", [0, 2])
def test_without_any_object_the_picture_says_so(tmp_path, drawn, classes):
    precision_recall(-np.ones((10, 101, classes)), np.linspace(0, 1, 101), [0.5 + i / 20 for i in range(10)],
                     NAMES[:classes], [-1.0] * classes, tmp_path / "curves.png")  # fmt: skip
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["there was nothing to find"]
