"""Grids of pictures: every image is there in its shape, with its caption or legend."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from bbframe.report import image_grid
from bbframe.report.box_drawing import TRUTH, Detections, LabelledBoxes
from bbframe.report.chart_style import GREEN, RED
from bbframe.report.image_grid import as_image, classified_grid, detection_grid

NONE = np.zeros((0, 4))
NOTHING = Detections(boxes=NONE, labels=np.zeros(0, int), scores=np.zeros(0), masks=None)
NO_TRUTH = LabelledBoxes(boxes=NONE, labels=np.zeros(0, int))


@pytest.fixture
def words(monkeypatch):
    """What was written above the pictures."""
    written, draw = [], image_grid.draw_text

    def record(pen, left, middle, text, size, ink):
        draw(pen, left, middle, text, size, ink)
        written.append((text, left))

    monkeypatch.setattr(image_grid, "draw_text", record)
    return written


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def share(path, colour):
    return (pixels_of(path) == ImageColor.getrgb(colour)).all(2).sum()


def blocks(path, colour):
    """The outlines (top, bottom, left, right) of connected areas of a colour, none beside another of its kind."""
    mask = (pixels_of(path) == ImageColor.getrgb(colour)).all(2)
    found = []
    while mask.any():
        top, left = np.argwhere(mask)[0]
        right = left + np.argmin(np.append(mask[top, left:], False))
        bottom = top + np.argmin(np.append(mask[top:, left], False))
        found.append((bottom - top, right - left))
        mask[top:bottom, left:right] = False
    return found


@pytest.mark.parametrize(("number", "height", "width"), [(1, 8, 8), (7, 40, 100), (13, 90, 30), (36, 64, 64)])
def test_images_keep_their_shape_and_their_verdict(tmp_path, number, height, width):
    """A frame is a rectangle of its colour around an image of another one."""
    images, good = [Image.new("RGB", (width, height), "#123456")] * number, [i % 3 == 0 for i in range(number)]
    classified_grid(images, ["3 (97%)"] * number, good, tmp_path / "grid.png", "Test images")
    found = blocks(tmp_path / "grid.png", "#123456")
    assert len(found) == number
    for high, wide in found:
        assert wide / high == pytest.approx(width / height, rel=0.02)
        assert wide * high > 0.5 * 224**2
    assert share(tmp_path / "grid.png", GREEN) > 0
    assert (share(tmp_path / "grid.png", RED) > 0) == (number > 1)


def test_a_caption_is_marked_with_its_verdict(tmp_path, monkeypatch):
    seen, draw = [], image_grid.add_caption
    monkeypatch.setattr(image_grid, "add_caption", lambda *args: (seen.append(args[1:]), draw(*args))[1])
    classified_grid([noise(32, 32)] * 2, ["cat", "dog (51%), is a cat of a rare kind"], [True, False],
                    tmp_path / "a.png", "T")  # fmt: skip
    assert seen[0] == (["✓ cat"], [GREEN])
    assert " ".join(seen[1][0]) == "✗ dog (51%), is a cat of a rare kind"
    assert set(seen[1][1]) == {RED}


@pytest.mark.parametrize(
    ("number", "size"), [(1, (96, 96)), (5, (8, 8)), (16, (96, 96)), (6, (800, 1333)), (7, (1333, 400))]
)
def test_detections_have_a_legend_that_fits(tmp_path, words, number, size):
    images = [Image.new("RGB", size[::-1], "#123456")] * number
    detection_grid(images, [NOTHING] * number, [NO_TRUTH] * number, ["cat"], tmp_path / "a.png", "Test images", 0.3)
    height, width = pixels_of(tmp_path / "a.png").shape[:2]
    assert max(height, width) < 2600
    found = blocks(tmp_path / "a.png", "#123456")
    assert len(found) == number
    assert all(wide / high == pytest.approx(size[1] / size[0], rel=0.02) for high, wide in found)
    assert [text for text, _ in words] == [
        "Test images",
        "true box, its class where it was missed",
        "predicted box, its class and score (0.3 or more)",
    ]
    for text, left in words:
        assert 0 < left < left + image_grid.text_width(text, image_grid.TEXT) < width
    assert share(tmp_path / "a.png", TRUTH) > 20


def test_images_of_any_size_share_a_grid(tmp_path):
    sizes = [(30, 50), (50, 30), (600, 400), (9, 9)]
    images = [Image.new("RGB", size, "#123456") for size in sizes]
    detection_grid(images, [NOTHING] * 4, [NO_TRUTH] * 4, ["cat"], tmp_path / "a.png", "Test images")
    found = [wide / high for high, wide in blocks(tmp_path / "a.png", "#123456")]
    assert sorted(found) == pytest.approx(sorted(w / h for w, h in sizes), rel=0.02)


def test_a_long_title_is_broken(tmp_path, words):
    detection_grid([noise(96, 96)], [NOTHING], [NO_TRUTH], ["cat"], tmp_path / "a.png", "a title of many words " * 10)
    lines = words[:-2]
    assert len(lines) > 2
    width = pixels_of(tmp_path / "a.png").shape[1]
    assert all(0 < left < left + image_grid.text_width(text, image_grid.TITLE) < width for text, left in lines)


def test_three_channels_are_colours_others_the_first():
    for channels in (1, 2, 3, 4):
        pixels = np.random.default_rng(0).integers(0, 255, (channels, 8, 9), dtype=np.uint8)
        expected = pixels.transpose(1, 2, 0) if channels == 3 else pixels[0]
        np.testing.assert_array_equal(np.asarray(as_image(pixels)), expected)
