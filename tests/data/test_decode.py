"""Every kind of image file comes out as a person sees it."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from bbframe.data.decode import glance, read_image

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


def tiff(path, pixels, order, compressed):
    """A TIFF of (H, W, 3) 16-bit pixels, which Pillow cannot write."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    strip = pixels.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if compressed else strip
    height, width, _ = pixels.shape
    behind = 8 + 2 + 9 * 12 + 4
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, behind), (259, 3, 1, 8 if compressed else 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, behind + 6), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(strip))]
    content = mark + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        content += struct.pack(f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *[0] * short)
    path.write_bytes(content + struct.pack(f"{order}I3H", 0, 16, 16, 16) + strip)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_colours_of_sixteen_bits_keep_the_low_ones(order, compressed, tmp_path):
    pixels = np.arange(12 * 16 * 3, dtype=np.uint16).reshape(12, 16, 3) * 113 + 5
    seen = read_image(tiff(tmp_path / "a.tif", pixels, order, compressed))
    assert np.array_equal(np.asarray(seen), (pixels.astype(int) * 255 + 32767) // 65535)


# is it all there?


def coloured(path, **options):
    """Noise of 60 x 40 in a file, some kilobytes of it."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(path, **options)
    return path


KINDS = {
    "plain.jpg": {},
    "progressive.jpg": {"progressive": True, "quality": 95},
    "preview.jpg": {"exif": True},
    "plain.png": {},
    "plain.gif": {},
    "plain.webp": {},
    "lossless.webp": {"lossless": True},
}


def written(name, folder):
    options = dict(KINDS[name])
    if options.pop("exif", False):  # as cameras do: a small JPEG in the header of the large one
        small = coloured(folder / "small.jpg").read_bytes()
        options["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + small
    return coloured(folder / name, **options)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("behind", [0, 10, 5000, 100_000])
def test_a_whole_file_is_taken_whatever_follows_it(name, behind, tmp_path):
    path = written(name, tmp_path)
    path.write_bytes(path.read_bytes() + bytes(range(256)) * (behind // 256) + b"\x07" * (behind % 256))
    assert glance(path).size == (60, 40)
    read_image(path)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_file_that_is_cut_off_is_known_without_decoding_it(name, share, tmp_path):
    path = written(name, tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ValueError, match=r"^is cut off$"):
        glance(path)


@pytest.mark.parametrize("lost", [1, 2, 5, 12, 20])
@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith(".webp")])
def test_a_file_without_its_last_bytes_is_read_as_far_as_it_goes(name, lost, tmp_path):
    path = written(name, tmp_path)
    whole = np.asarray(read_image(path))
    path.write_bytes(path.read_bytes()[:-lost])
    facts = glance(path)
    seen = read_image(path)
    assert facts.assumed == seen.info["assumed"]
    assert seen.info["assumed"] in ([], ["image files without their last bytes, read as far as they go"])
    same = (np.asarray(seen) == whole).all(-1)
    assert same[:24].mean() > 0.98, same.mean()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_only_a_file_without_its_end_is_decoded(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr("bbframe.data.decode.read_image", lambda path, *_: decoded.append(path))
    paths = [written(name, tmp_path) for name in KINDS]
    for path in paths:
        glance(path)
    assert decoded == []
    cut = paths[3]
    cut.write_bytes(cut.read_bytes()[:-12])
    glance(cut)
    assert decoded == [cut]


def test_a_picture_whose_end_alone_is_missing_is_taken(tmp_path):
    path = coloured(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-12])
    read_image(path)
    assert glance(path).size == (60, 40)


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert glance(coloured(tmp_path / "a.jpg", exif=exif)).size == (40, 60)


def test_an_upright_image_is_not_copied(tmp_path, monkeypatch):
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "copy", None)
    image = read_image(tmp_path / "a.png")
    assert image.getpixel((7, 5)) == (255, 0, 0)  # though its file is closed
