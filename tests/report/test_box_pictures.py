"""Pictures of detection: what is drawn, what is left out, and that a label can be read."""

import time

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from PIL import Image

from bbframe.report.annotate import draw_detections, draw_label
from bbframe.report.box_drawing import class_colour
from bbframe.report.box_pictures import TRUTH, box_grid, precision_recall

NAMES = ["cat", "dog", "traffic light", "cost_$5$", "猫", "a rather long name of a class, as some have"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look into."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, out: (figures.append(figure), save(figure, out)))
    return figures


def image(height=96, width=96, channels=3):
    return (torch.rand(channels, height, width) * 255).to(torch.uint8)


def row(boxes, labels, scores, truth=(), truth_labels=(), **more):
    boxes, truth = (torch.tensor(x, dtype=torch.float32).reshape(-1, 4) for x in (boxes, truth))
    labels, truth_labels = (torch.tensor(x, dtype=torch.long) for x in (labels, truth_labels))
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": torch.tensor(scores, dtype=torch.float32),
        "truth": truth,
        "truth_labels": truth_labels,
        **more,
    }


def outlines(axes):
    """The boxes of an image: (colour, dashed, corners in units of the image's width)."""
    found = []
    for patch in axes.patches:
        if isinstance(patch, Rectangle) and not patch.get_fill():
            dashed = patch.get_linestyle() not in ("-", "solid")
            sides = np.array([patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()])
            found.append((to_hex(patch.get_edgecolor()).upper(), dashed, sides / axes.get_xlim()[1]))
    return found


def words(axes):
    return [text.get_text() for text in axes.texts]


# a grid of test images


def test_true_boxes_are_dashed_and_predicted_ones_in_the_colour_of_their_class(tmp_path, drawn):
    found = row([[10, 20, 40, 60], [50, 50, 90, 90]], [1, 2], [0.9, 0.4], [[12, 20, 40, 60]], [1])
    box_grid([image(height=48)], [found], NAMES, tmp_path / "boxes.png", "Test images")
    (axes,) = drawn[0].axes
    (first, second) = outlines(axes)
    assert first[:2] == (to_hex(class_colour(1)).upper(), False)
    np.testing.assert_allclose(first[2] * 96, [10, 20, 30, 40], rtol=1e-4)
    assert second[:2] == (TRUTH, True)
    np.testing.assert_allclose(second[2] * 96, [12, 20, 28, 40], rtol=1e-4)
    assert words(axes) == ["dog 0.90"]
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["true box, its class where it was missed", "predicted box, its class and score (0.5 or more)"]


def test_the_threshold_decides_what_is_drawn(tmp_path, drawn):
    found = row([[10, 20, 40, 60], [50, 50, 90, 90]], [1, 2], [0.9, 0.4])
    for threshold, shown in ((0.95, []), (0.5, ["dog 0.90"]), (0.4, ["dog 0.90", "traffic light 0.40"])):
        box_grid([image()], [found], NAMES, tmp_path / "boxes.png", "Test images", threshold)
        assert words(drawn[-1].axes[0]) == shown
        assert f"({threshold:g} or more)" in drawn[-1].legends[0].get_texts()[1].get_text()


@pytest.mark.parametrize(
    ("label", "box", "said"),
    [(0, [12, 20, 40, 60], False), (1, [12, 20, 40, 60], True), (0, [12, 20, 90, 90], True)],
)
def test_the_class_of_a_true_box_is_written_where_it_was_missed(tmp_path, drawn, label, box, said):
    box_grid([image()], [row([[10, 20, 40, 60]], [0], [0.9], [box], [label])], NAMES, tmp_path / "a.png", "Test")
    assert (words(drawn[0].axes[0])[1:] == [NAMES[label]]) is said


@pytest.mark.parametrize("shape", [(1, (96, 96)), (5, (8, 8)), (16, (96, 96)), (6, (800, 1333)), (7, (1333, 400))])
def test_images_keep_their_shape_and_labels_stay_inside(tmp_path, drawn, shape):
    number, (height, width) = shape
    boxes = torch.tensor([[0, 0, 1, 1], [0.6, 0, 1, 0.1], [0, 0.9, 0.3, 1], [0.5, 0.5, 0.5, 0.5]])
    boxes = boxes * torch.tensor([width, height, width, height])
    found = row(boxes.tolist(), [0, 2, 3, 5], [0.9, 0.8, 0.7, 0.6], boxes[:1].tolist(), [1])
    started = time.perf_counter()
    box_grid([image(height, width)] * number, [found] * number, NAMES, tmp_path / "boxes.png", "Test images: mAP 0.5")
    assert time.perf_counter() - started < 10
    assert len(drawn[0].axes) == number
    drawn[0].draw_without_rendering()
    for axes in drawn[0].axes:
        frame = axes.get_window_extent()
        assert frame.width / frame.height == pytest.approx(width / height, rel=0.02)
        for text in axes.texts:
            extent = text.get_window_extent()
            assert extent.x0 >= frame.x0 - 2
            assert extent.x1 <= frame.x1 + 2
            assert extent.height > 6
    legend = drawn[0].legends[0].get_window_extent()
    assert 0 < legend.x0 < legend.x1 < drawn[0].bbox.x1
    high, wide = imread(tmp_path / "boxes.png").shape[:2]
    assert max(high, wide) < 2600


def test_images_of_any_size_and_number_of_channels_share_a_grid(tmp_path, drawn):
    images = [image(30, 50), image(50, 30, 1), image(600, 400), image(9, 9, 4)]
    box_grid(images, [row([], [], [])] * 4, NAMES, tmp_path / "boxes.png", "Test images")
    shown = [axes.images[0] for axes in drawn[0].axes]
    assert [tuple(x.get_array().shape) for x in shown] == [(30, 50, 3), (50, 30, 3), (600, 400, 3), (9, 9, 3)]
    np.testing.assert_array_equal(shown[1].get_array()[..., 2], images[1][0])
    assert [x.get_interpolation() for x in shown] == ["nearest", "nearest", "antialiased", "nearest"]


def test_masks_are_a_veil_in_the_colour_of_the_class(tmp_path, drawn):
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :5], masks[1, 10:] = True, True
    found = row([[0, 0, 20, 5], [0, 10, 20, 20]], [1, 2], [0.9, 0.1], masks=masks)
    box_grid([torch.zeros(3, 20, 20, dtype=torch.uint8)], [found], NAMES, tmp_path / "boxes.png", "Test images")
    pixels = drawn[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(pixels[2, 2], 0.45 * 255 * np.array(class_colour(1)), atol=1)
    assert not pixels[5:].any()


def test_in_a_crowd_labels_do_not_hide_each_other(tmp_path, drawn):
    boxes = [[x, y, x + 30, y + 30] for x in range(0, 66, 3) for y in range(0, 66, 11)]
    found = row(boxes, [i % 4 for i in range(len(boxes))], [0.9] * len(boxes))
    box_grid([image()], [found], NAMES, tmp_path / "boxes.png", "Test images")
    drawn[0].draw_without_rendering()
    labels = [patch.get_window_extent() for patch in drawn[0].axes[0].patches if patch.get_fill()]
    assert 5 < len(labels) < len(boxes)
    for i, one in enumerate(labels):
        for other in labels[:i]:
            common = matplotlib.transforms.Bbox.intersection(one, other)
            assert common is None or common.width * common.height < 0.2 * one.width * one.height


def test_classes_have_colours_of_their_own_and_none_is_the_green_of_truth():
    colours = [to_hex(class_colour(i)) for i in range(80)]
    assert len(set(colours)) == 80
    for red, green, blue in map(class_colour, range(80)):
        assert not green > 1.15 * max(red, blue)


# precision against recall


def curves(classes, seed=0):
    """Precision (10, 101, K) that falls with the recall and with the overlap."""
    draw, recall = np.random.default_rng(seed), np.linspace(0, 1, 101)
    reach = draw.uniform(0.3, 1.0, classes)
    overlaps = np.linspace(0.5, 0.95, 10)
    precision = np.stack([(recall[:, None] < reach * (1.4 - t)) * (1 - 0.5 * recall[:, None] * t) for t in overlaps])
    return torch.tensor(precision), torch.tensor(recall), overlaps.tolist()


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


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
    precision_recall(-torch.ones(10, 101, classes), torch.linspace(0, 1, 101), [0.5 + i / 20 for i in range(10)],
                     NAMES[:classes], [-1.0] * classes, tmp_path / "curves.png")  # fmt: skip
    assert words(drawn[0].axes[0]) == ["there was nothing to find"]


# predictions on pictures


def changed(before, after):
    """Where two pictures of the same size differ: (H, W) bool."""
    return (np.asarray(before) != np.asarray(after)).any(2)


def test_boxes_above_the_threshold_are_drawn_where_they_are():
    plain = Image.new("RGB", (640, 480), "black")
    found = row([[100, 150, 300, 400], [10, 10, 50, 50]], [0, 1], [0.8, 0.3])
    seen = draw_detections(plain, found, NAMES)
    assert seen.size == plain.size
    assert not np.asarray(plain).any()
    where = changed(plain, seen)
    rows, columns = np.nonzero(where)
    assert (columns.min(), columns.max()) == (100, 300)
    assert rows.max() == 400
    assert 110 < rows.min() < 150
    assert not where[160:390, 110:290].any()
    assert not changed(draw_detections(plain, found, NAMES, threshold=0.9), plain).any()
    assert changed(draw_detections(plain, found, NAMES, threshold=0.3), plain)[:60, :60].any()


@pytest.mark.parametrize("size", [(8, 8), (96, 96), (500, 20), (1333, 800), (3000, 2000)])
def test_text_and_lines_fit_the_picture(size):
    plain = Image.new("L", size, "white")
    corners = torch.tensor([[0, 0, 1, 1], [0.8, 0, 1, 0.2], [0, 0.8, 0.2, 1], [0.5, 0.5, 0.5, 0.5], [-1, -1, 2, 2]])
    found = row((corners * torch.tensor([*size, *size])).tolist(), [0, 2, 4, 5, 1], [0.9, 0.8, 0.7, 0.6, 0.55])
    seen = draw_detections(plain, found, NAMES)
    assert max(seen.size) >= 320
    factor = seen.width // size[0]
    assert seen.size == (size[0] * factor, size[1] * factor)
    assert seen.mode == "RGB"
    assert np.asarray(seen).std() > 1


def test_nothing_found_leaves_the_image_as_it_is():
    plain = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8))
    found = row([], [], [], masks=torch.zeros(0, 400, 500, dtype=torch.bool))
    assert not changed(draw_detections(plain, found, NAMES), plain).any()


def test_masks_are_drawn_through_which_the_image_is_seen():
    plain = Image.new("RGB", (400, 400), (100, 100, 100))
    masks = np.zeros((1, 400, 400), bool)
    masks[0, 200:220, 200:220] = True
    seen = draw_detections(plain, row([[150, 150, 350, 350]], [1], [0.9], masks=masks), NAMES)
    expected = 55 + 0.45 * 255 * np.array(class_colour(1))
    np.testing.assert_allclose(seen.getpixel((210, 210)), expected, atol=1)
    assert seen.getpixel((300, 300)) == (100, 100, 100)


def test_a_label_lies_below_the_image_which_is_all_there():
    pixels = np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    seen = draw_label(Image.fromarray(pixels), ["cat  98.0%", "dog  1.5%"])
    assert seen.width == 500
    assert 420 < seen.height < 500
    np.testing.assert_array_equal(np.asarray(seen)[:400], pixels)
    band = np.asarray(seen)[400:]
    assert band.max() == 255
    assert band.min() < 40


def test_a_small_image_is_enlarged_and_a_long_label_widens_the_picture():
    seen = draw_label(Image.new("L", (8, 16), 0), ["an extraordinarily long name of a class, even for a plant  98.0%"])
    assert seen.height > 320
    assert seen.width > 320
    margin = np.asarray(seen)[330:, -4:]
    assert margin.min() == 255


def test_no_state_is_left(tmp_path):
    before = dict(matplotlib.rcParams)
    box_grid([image()], [row([], [], [])], NAMES, tmp_path / "boxes.png", "Test images")
    assert dict(matplotlib.rcParams) == before
