"""Text on images: enlarged until it can be read, cut where it does not fit, in any script that has a font."""

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw

from bbframe.report import text_drawing
from bbframe.report.text_drawing import add_caption, draw_text, enlarge_for_text, fitted, shortened, text_width


def ink_of(text, size=20):
    """The columns and rows that a text at (10, 50) touches, as (left, right, top, bottom)."""
    picture = Image.new("L", (600, 100), "white")
    draw_text(ImageDraw.Draw(picture), 10, 50, text, size, "black")
    rows, columns = np.nonzero(np.asarray(picture) < 128)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_text_begins_and_ends_where_it_says_and_is_in_the_middle():
    left, right, top, bottom = ink_of("HALL EH")
    assert 10 <= left <= 13
    assert right == pytest.approx(10 + text_width("HALL EH", 20), abs=4)
    assert (top + bottom) / 2 == pytest.approx(50, abs=1)
    assert bottom - top == pytest.approx(0.73 * 20, abs=2)


def test_each_letter_comes_from_the_first_font_that_has_it(monkeypatch):
    sans, mono = (findfont(FontProperties(family=name)) for name in ("DejaVu Sans", "DejaVu Sans Mono"))
    fonts = {sans: frozenset(map(ord, "ab ")), mono: frozenset(map(ord, "abcd "))}
    monkeypatch.setattr(text_drawing, "_letters_by_file", lambda: fonts)
    monkeypatch.setattr(text_drawing, "_font_file", text_drawing._font_file.__wrapped__)
    runs = [(font.path, part) for font, part in text_drawing._runs("ab cd 猫", 12)]
    assert runs == [(sans, "ab "), (mono, "cd"), (sans, " 猫")]  # no font has the last: it is drawn as a box


@pytest.mark.parametrize("text", ["кошка", "γάτα", "猫", "قطة", "✓ chat, à côté", "cost_$5$"])
def test_any_script_leaves_ink(text):
    left, right, *_ = ink_of(text)
    assert 0 < right - left <= text_width(text, 20)


def test_a_name_is_cut_to_its_width_but_never_to_nothing():
    name = "a rather long name of a class, as some have"
    for width in (60, 100, 150):
        short = fitted(name, 13, width)
        assert text_width(short, 13) <= width
        assert short[-1] == "…"
        assert short[:-1] == name[: len(short) - 1]
    assert fitted("cat", 13, 100) == "cat"
    assert len(fitted("猫" * 30, 13, 1e6)) == 24
    assert len(fitted(name, 13, 1)) == 3
    assert shortened("abcdef", 4) == "abc…"


@pytest.mark.parametrize(("size", "factor"), [((8, 16), 20), ((96, 96), 4), ((320, 10), 1), ((500, 400), 1)])
def test_a_small_image_is_enlarged_pixel_by_pixel(size, factor):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    expected = pixels.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(np.asarray(enlarge_for_text(Image.fromarray(pixels))), expected)


def test_a_caption_lies_below_the_image_which_is_all_there():
    pixels = np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    seen = add_caption(Image.fromarray(pixels), ["cat  98.0%", "dog  1.5%"], ["black", "#666666"])
    assert seen.width == 500
    assert 420 < seen.height < 500
    np.testing.assert_array_equal(np.asarray(seen)[:400], pixels)
    band = np.asarray(seen)[400:]
    assert band.max() == 255
    assert band[: len(band) // 2].min() < 40
    assert 90 < band[len(band) // 2 + 3 :].min() < 120


def test_a_long_caption_widens_the_picture():
    name = "an extraordinarily long name of a class, even for a plant  98.0%"
    seen = np.asarray(add_caption(Image.new("RGB", (160, 320)), [name], ["black"]))
    assert seen.shape[0] > 320
    assert seen.shape[1] > 320
    assert seen[330:, -4:].min() == 255


@pytest.mark.parametrize("letter", ["\n", "\t", "\x00", "\x1b", "\u202e"])
def test_control_characters_are_spelled_out(letter):
    spelled = letter.encode("unicode_escape").decode()
    assert ink_of(f"a{letter}b") == ink_of(f"a{spelled}b")
