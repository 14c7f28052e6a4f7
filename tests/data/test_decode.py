"""Every kind of image file comes out as a person sees it."""

import numpy as np
import pytest
from PIL import Image

from bbframe.data.decode import read_image

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)
COLOUR = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 60)], -1)


def reread(image, path, **options):
    image.save(path, **options)
    return read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_modes_stay_grey(mode, tmp_path):
    image = reread(Image.fromarray(RAMP).convert(mode), tmp_path / "a.png")
    assert (image.mode, image.size) == ("L", (32, 8))
    if mode != "1":
        assert np.array_equal(np.asarray(image), RAMP)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_kept(mode, tmp_path):
    image = reread(Image.fromarray(COLOUR).convert(mode), tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), COLOUR)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(COLOUR).convert("P")
    assert np.array_equal(np.asarray(reread(image, tmp_path / "a.png")), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path):
    image = reread(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.tif")
    assert (image.mode, image.getpixel((3, 3))) == ("RGB", (255, 0, 0))


@pytest.mark.parametrize(("bits", "grey"), [(0, 0), (257, 1), (32896, 128), (65535, 255), (300, 1), (65000, 253)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(bits, grey, suffix, tmp_path):
    image = reread(Image.fromarray(np.full((4, 4), bits, np.uint16)), tmp_path / f"a.{suffix}")
    assert (image.mode, image.getpixel((1, 1))) == ("L", grey)


def test_unbounded_pixels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="mode F"):
        reread(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(mode, tmp_path):
    image = reread(Image.new(mode, (4, 4), 0), tmp_path / "a.png")  # black, and wholly transparent
    assert image.getextrema() in ((255, 255), ((255, 255),) * 3)


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 1)
    image = reread(image, tmp_path / "a.png", transparency=0)
    assert (image.getpixel((0, 0)), image.getpixel((1, 1))) == ((10, 20, 30), (255, 255, 255))


@pytest.mark.parametrize(("orientation", "transpose"), [(3, 3), (6, 4), (8, 2)])
def test_exif_orientation_is_applied(orientation, transpose, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = reread(Image.fromarray(RAMP), tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(image), np.asarray(Image.fromarray(RAMP).transpose(transpose)))
