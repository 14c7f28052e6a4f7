"""Boxes, masks and labels on images: drawn where they are, in their colours, and legible."""

import time

import numpy as np
import pytest
from PIL import Image, ImageColor

from bbframe.report import box_drawing
from bbframe.report.box_drawing import TRUTH, Detections, LabelledBoxes, class_colour, draw_detections
from bbframe.report.text_drawing import text_width

NAMES = ["cat", "dog", "traffic light", "cost_$5$", "猫", "a rather long name of a class, as some have"]


@pytest.fixture
def labels(monkeypatch):
    """The labels that were written: (text, left, top, right, bottom) in pixels of the picture."""
    written, draw = [], box_drawing.draw_text

    def record(pen, left, middle, text, size, ink):
        draw(pen, left, middle, text, size, ink)
        written.append((text, left, middle - 0.5 * size, left + text_width(text, size), middle + 0.5 * size))

    monkeypatch.setattr(box_drawing, "draw_text", record)
    return written


def detections(boxes=(), labels=(), scores=(), masks=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes=boxes, labels=np.array(labels, int), scores=np.array(scores), masks=masks)


def true_boxes(boxes=(), labels=()):
    return LabelledBoxes(boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=np.array(labels, int))


def places(picture, colour):
    """Where a picture has exactly a colour: (H, W) bool."""
    return (np.asarray(picture) == ImageColor.getrgb(colour)).all(2)


def changed(before, after):
    """Where two pictures of the same size differ: (H, W) bool."""
    return (np.asarray(before) != np.asarray(after)).any(2)


def test_boxes_above_the_threshold_are_drawn_where_they_are():
    plain = Image.new("RGB", (640, 480), "black")
    found = detections([[100, 150, 300, 400], [10, 10, 50, 50]], [0, 1], [0.8, 0.3])
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


def test_found_boxes_are_solid_in_the_colour_of_their_class_and_true_ones_dashed_and_green():
    plain = Image.new("RGB", (640, 480), "black")
    found, truth = detections([[100, 150, 300, 400]], [1], [0.9]), true_boxes([[320, 150, 520, 400]], [1])
    seen = draw_detections(plain, found, NAMES, truth=truth)
    assert places(seen, class_colour(1))[150:401, 100].all()
    assert places(seen, class_colour(1))[400, 100:301].all()
    for side in (places(seen, TRUTH)[150:401, 320], places(seen, TRUTH)[400, 320:521]):
        assert 0.4 < side.mean() < 0.8
        assert 5 < np.count_nonzero(np.diff(side.astype(int)) == 1) < 50  # as many dashes
    rows, columns = np.nonzero(places(seen, TRUTH))
    assert (columns.min(), columns.max()) == (320, 520)
    assert rows.min() == 150


def test_a_picture_fills_its_frame_and_boxes_are_scaled_with_it():
    plain = Image.new("RGB", (200, 100), "black")
    found = detections([[20, 30, 120, 80]], [1], [0.9])
    seen = draw_detections(plain, found, NAMES, frame=(400, 400))
    assert seen.size == (400, 200)
    rows, columns = np.nonzero(places(seen, class_colour(1)))
    assert (columns.min(), columns.max(), rows.max()) == (40, 240, 160)


def test_the_threshold_decides_what_is_drawn(labels):
    found = detections([[10, 20, 40, 60], [50, 50, 90, 90]], [1, 2], [0.9, 0.4])
    for threshold, words in ((0.95, []), (0.5, ["dog 0.90"]), (0.4, ["dog 0.90", "traffic light 0.40"])):
        labels.clear()
        draw_detections(Image.new("RGB", (96, 96)), found, NAMES, threshold)
        assert [text for text, *_ in labels] == words


@pytest.mark.parametrize(
    ("label", "box", "said"),
    [(0, [12, 20, 40, 60], False), (1, [12, 20, 40, 60], True), (0, [12, 20, 90, 90], True)],
)
def test_the_class_of_a_true_box_is_written_where_it_was_missed(labels, label, box, said):
    found = detections([[10, 20, 40, 60]], [0], [0.9])
    draw_detections(Image.new("RGB", (96, 96)), found, NAMES, truth=true_boxes([box], [label]))
    assert [text for text, *_ in labels] == ["cat 0.90", *[NAMES[label]] * said]


@pytest.mark.parametrize("frame", [None, (340, 340)])
@pytest.mark.parametrize("size", [(8, 8), (96, 96), (500, 20), (400, 1333), (1333, 800), (3000, 2000)])
def test_labels_are_legible_and_stay_inside(labels, size, frame):
    corners = np.array([[0, 0, 1, 1], [0.8, 0, 1, 0.2], [0, 0.8, 0.2, 1], [0.5, 0.5, 0.5, 0.5], [-1, -1, 2, 2]])
    found = detections((corners * [*size, *size]), [0, 2, 4, 5, 1], [0.9, 0.8, 0.7, 0.6, 0.55])
    truth = true_boxes(corners[1:3] * [*size, *size], [5, 5])
    started = time.process_time()
    seen = draw_detections(Image.new("L", size, "white"), found, NAMES, truth=truth, frame=frame)
    assert time.process_time() - started < 5
    assert seen.mode == "RGB"
    assert max(seen.size) >= 320
    assert seen.width / seen.height == pytest.approx(size[0] / size[1], rel=0.02 if seen.height > 100 else 0.05)
    assert labels
    for text, left, top, right, bottom in labels:
        assert left >= 0, text
        assert right <= seen.width, text
        assert top >= 0, text
        assert bottom <= max(seen.height, 17), text
        assert bottom - top > 12.9, text


def test_a_box_of_one_pixel_can_be_seen():
    plain = Image.new("RGB", (640, 640), "black")
    found, truth = detections([[100, 100, 101, 101]], [1], [0.9]), true_boxes([[400, 400, 401, 401]], [1])
    seen = draw_detections(plain, found, NAMES, truth=truth)
    assert places(seen, class_colour(1))[100, 100:106].all()
    assert not places(seen, class_colour(1))[104, 104]
    assert places(seen, TRUTH)[400, 400:406].all()


def test_in_a_crowd_no_label_hides_another(labels):
    boxes = [[x, y, x + 30, y + 30] for x in range(0, 66, 3) for y in range(0, 66, 11)]
    found = detections(boxes, [i % 4 for i in range(len(boxes))], [0.9] * len(boxes))
    draw_detections(Image.new("RGB", (96, 96)), found, NAMES)
    assert 5 < len(labels) < len(boxes)
    for i, (_, left, top, right, bottom) in enumerate(labels):
        for _, left2, top2, right2, bottom2 in labels[:i]:
            assert min(right, right2) <= max(left, left2) or min(bottom, bottom2) <= max(top, top2)


def test_a_long_name_is_shortened_and_its_score_remains(labels):
    draw_detections(Image.new("RGB", (90, 320)), detections([[0, 100, 90, 200]], [5], [0.9]), NAMES)
    ((text, _, _, right, _),) = labels
    assert text.startswith("a r")
    assert text.endswith("… 0.90")
    assert right <= 90


def test_nothing_found_leaves_the_image_as_it_is():
    plain = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8))
    assert not changed(draw_detections(plain, detections(masks=[]), NAMES), plain).any()


def test_masks_are_a_veil_in_the_colour_of_the_class():
    plain = Image.new("RGB", (400, 400), (100, 100, 100))
    masks = np.zeros((2, 400, 400), bool)
    masks[0, 200:220, 200:220], masks[1, :100] = True, True
    seen = draw_detections(plain, detections([[150, 150, 350, 350]] * 2, [1, 2], [0.9, 0.1], masks), NAMES)
    expected = 55 + 0.45 * np.array(ImageColor.getrgb(class_colour(1)))
    np.testing.assert_allclose(seen.getpixel((210, 210)), expected, atol=1)
    assert seen.getpixel((300, 300)) == (100, 100, 100)
    assert not changed(plain, seen)[:100].any()


def test_classes_have_colours_of_their_own_and_none_is_the_green_of_truth():
    colours = [ImageColor.getrgb(class_colour(i)) for i in range(80)]
    assert len(set(colours)) == 80
    assert not [c for c in colours if c[1] > 1.15 * max(c[0], c[2])]
