"""The grid of neighbours: every image is there, wrong classes stand out, a broken image does not end it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from bbframe.report import neighbour_grid as module
from bbframe.report.chart_style import GREEN, GREY, RED
from bbframe.report.neighbour_grid import FRAME, MOST_NEIGHBOURS, MOST_ROWS, SIDE, neighbour_grid

BORDER = (SIDE + 2 * FRAME) ** 2 - SIDE**2  # pixels of a frame


@pytest.fixture
def words(monkeypatch):
    """What was written."""
    written, draw = [], module.draw_text
    monkeypatch.setattr(
        module, "draw_text", lambda pen, x, y, text, *rest: (written.append(text), draw(pen, x, y, text, *rest))
    )
    return written


def blue(index):
    return Image.new(("RGB", "L", "RGBA")[index % 3], (20 + index, 30), "#0000ff" if index % 3 != 1 else 7)


def count(path, colour):
    with Image.open(path) as image:
        return (np.asarray(image) == ImageColor.getrgb(colour)).all(2).sum()


def test_a_neighbour_of_another_class_has_another_frame(tmp_path, words):
    neighbours = np.array([[2, 1, 3], [3, 0, 2]])
    similar = np.array([[0.9, 0.8, 0.123456], [0.7, 0.6, -0.5]])
    names, labels = ["cat", "dog\u202e"], [0, 1, 0, 1]
    neighbour_grid(blue, [0, 1], neighbours, similar, tmp_path / "n.png", labels=labels, class_names=names)
    assert words.count("✓ cat") == words.count("✓ dog\\u202e") == 1
    assert words.count("✗ cat") == words.count("✗ dog\\u202e") == 2
    assert {"0.900", "0.123", "-0.500"} <= set(words)
    for colour, frames in ((GREEN, 2), (RED, 4), (GREY, 2)):
        assert BORDER * frames <= count(tmp_path / "n.png", colour) < BORDER * (frames + 0.5)


def test_without_classes_no_frame_judges(tmp_path, words):
    files = ["scan 0.png", "scan 1.png"]
    neighbour_grid(blue, [1], np.array([[0, 2]]), np.ones((1, 2)), tmp_path / "n.png", names=files, title="Scans")
    assert count(tmp_path / "n.png", GREEN) == count(tmp_path / "n.png", RED) == 0
    assert words == ["Scans", "the number is the cosine similarity", "scan 1.png", "1.000", "1.000"]


def test_an_image_that_cannot_be_read_says_why(tmp_path, words):
    def read(index):
        if index == 1:
            raise OSError("broken\nfile")
        return blue(index)

    neighbour_grid(read, [0, 1], np.array([[1], [0]]), np.ones((2, 1)), tmp_path / "n.png")
    assert " ".join(words).count("cannot be read: broken file") == 2


def test_a_large_question_is_cut_and_says_so(tmp_path, words):
    rng = np.random.default_rng(0)
    neighbour_grid(blue, range(50), rng.integers(0, 50, (50, 30)), rng.random((50, 30)), tmp_path / "n.png")
    title = " ".join(words[:2])
    assert f"{MOST_ROWS} of 50 images, {MOST_NEIGHBOURS} of 30 neighbours" in title
    assert words.count("image") == MOST_ROWS
    with Image.open(tmp_path / "n.png") as image:
        assert max(image.size) < 5000


@pytest.mark.parametrize(("queries", "shape"), [([], (0, 3)), ([0], (1, 0))])
def test_nothing_to_draw_is_an_error(tmp_path, queries, shape):
    with pytest.raises(ValueError, match="no image with a neighbour"):
        neighbour_grid(blue, queries, np.zeros(shape, int), np.zeros(shape), tmp_path / "n.png")
