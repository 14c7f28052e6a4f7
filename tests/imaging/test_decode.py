"""Every kind of image file comes out as a person sees it."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from bbframe.imaging.decode import SUFFIXES, Decoding, glance, read_image

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


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def late(path, *chunks):
    """The PNG with more chunks behind its pixels."""
    raw = path.read_bytes()
    place = raw.rindex(b"\0\0\0\0IEND")
    path.write_bytes(raw[:place] + b"".join(chunks) + raw[place:])
    return path


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def turned(how, path):
    """RAMP in a file that says, in one of the ways there are, that it is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n"
    image, notes = Image.fromarray(RAMP), PngInfo()
    if how in ("jpg", "webp", "tif", "png", "avif"):
        path = path.with_suffix(f".{how}")
        image.save(path, exif=exif, **{"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(how, {}))
    elif how == "compressed tif":
        path = path.with_suffix(".tif")
        image.save(path, exif=exif, compression="tiff_deflate")
    elif how == "deep tif":
        path = path.with_suffix(".tif")
        Image.fromarray(RAMP.astype(np.uint16) * 257).save(path, exif=exif)
    else:
        if how == "xmp":
            notes.add_itxt("XML:com.adobe.xmp", XMP)
        elif how == "profile":
            notes.add_text("Raw profile type exif", profile)
        image.save(path, pnginfo=notes)
        if how == "late exif":
            late(path, chunk(b"tEXt", b"date\0today"), chunk(b"eXIf", exif.tobytes()[6:]))
        elif how == "late xmp":
            late(path, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode()))
        elif how == "late profile":
            late(path, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode())))
    return path


WAYS = ["jpg", "webp", "tif", "compressed tif", "deep tif", "png", "xmp", "profile"]


@pytest.mark.parametrize("how", [*WAYS, "late exif", "late xmp", "late profile"])
def test_the_look_and_the_reading_agree_on_what_is_upright(how, tmp_path):
    path = turned(how, tmp_path / "a.png")
    facts = glance(path)
    assert (facts.size, facts.stored, facts.turned) == ((8, 32), (32, 8), True)
    upright = np.rot90(RAMP, -1).astype(int)
    for pixels, decoding, said in [
        (upright, Decoding(), None),
        (upright, Decoding(exif="apply"), (32, 8)),
        (upright, Decoding(), (8, 32)),
        (RAMP, Decoding(), (32, 8)),
        (RAMP, Decoding(exif="ignore"), None),
    ]:
        seen = np.asarray(read_image(path, decoding, said).convert("L"))
        assert seen.shape == pixels.shape
        assert np.abs(seen - pixels).max() <= 2


def test_notes_behind_the_pixels_that_tell_no_orientation_are_not_decoded(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    late(tmp_path / "a.png", chunk(b"tEXt", b"date:create\0today"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert glance(tmp_path / "a.png").size == (32, 8)


def grey_tiff(path, value):
    """A TIFF of 4 x 4 pixels of 16 bits in which 0 is white."""
    strip = struct.pack("<H", value) * 16
    entries = [(256, 4), (257, 4), (258, 16), (259, 1), (262, 0), (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, 4)]
    head = b"II*\0" + struct.pack("<IH", 8, 9)
    head += b"".join(struct.pack("<HHIHH", tag, 3, 1, held, 0) for tag, held in [*entries, (279, len(strip))])
    path.write_bytes(head + bytes(4) + strip)
    return path


def test_where_zero_is_white_sixteen_bits_are_turned_round(tmp_path):
    path = grey_tiff(tmp_path / "a.tif", 10000)
    assert glance(path).peak == 55535
    assert read_image(path).getpixel((1, 1)) == 216  # (65535 - 10000) / 257


@pytest.mark.parametrize("colour", [(40000,), (40000, 20000, 10000)])
def test_the_transparent_colour_of_sixteen_bits_is_white(colour, tmp_path):
    other = tuple(value // 2 for value in colour)
    row = b"\0" + struct.pack(f">{len(colour)}H", *colour) * 3 + struct.pack(f">{len(colour)}H", *other)
    head = struct.pack(">IIBBBBB", 4, 4, 16, 0 if len(colour) == 1 else 2, 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(f">{len(colour)}H", *colour))
    parts = chunk(b"IHDR", head), clear, chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    pixels = np.asarray(read_image(tmp_path / "a.png")).reshape(4, 4, -1)
    assert (pixels[:, :3] == 255).all()
    assert pixels[0, 3].tolist() == [round(value / 257) for value in other]


def test_pages_are_no_animation(tmp_path):
    Image.new("RGB", (8, 8), "red").save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (3, 3), 9)] * 2
    )
    facts, image = glance(tmp_path / "a.tif"), read_image(tmp_path / "a.tif")
    assert (facts.size, image.getpixel((1, 1))) == ((8, 8), (255, 0, 0))
    assert (
        facts.assumed == image.info["assumed"] == ["TIFF files of several pages of which the first picture is taken"]
    )


@pytest.mark.parametrize("suffix", ["jpe", "jp2", "mpo", "tga", "ico", "pnm", "pbm", "dib", "avif"])
def test_every_suffix_that_is_offered_is_decoded(suffix, tmp_path):
    if f".{suffix}" not in SUFFIXES:
        pytest.skip("this Pillow has no decoder of it")
    mode = "1" if suffix == "pbm" else "RGB"
    Image.new(mode, (16, 16), "white").save(tmp_path / f"a.{suffix}")
    assert glance(tmp_path / f"a.{suffix}").size == (16, 16)
    assert np.asarray(read_image(tmp_path / f"a.{suffix}")).min() >= 250


def test_the_size_is_that_of_the_picture_in_an_icon(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.ico", sizes=[(64, 64)])
    raw = bytearray((tmp_path / "a.ico").read_bytes())
    raw[6:8] = 16, 16  # as it says in the header
    (tmp_path / "a.ico").write_bytes(raw)
    assert glance(tmp_path / "a.ico").size == read_image(tmp_path / "a.ico").size == (64, 64)
    with pytest.raises(ValueError, match="has 64x64 pixels"):
        read_image(tmp_path / "a.ico", Decoding(max_pixels=1000))


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_not_opened(kind, tmp_path):
    path = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (glance, read_image):
        with pytest.raises(ValueError, match=r"^is no regular file$"):
            read(path)


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
    monkeypatch.setattr("bbframe.imaging.decode.read_image", lambda path, *_: decoded.append(path))
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
