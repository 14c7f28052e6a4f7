"""A JPEG that is decoded the quick way shows what it shows the usual way, or is left to the usual way."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.imaging import jpeg_file
from bbframe.imaging.decode import Decoding, read_image
from bbframe.imaging.jpeg_file import UndecodedError, plain_jpeg, tensor_decoder

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).resize((161, 119))
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colours": {"subsampling": 0},
    "half colours": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 4},
    "stored as RGB": {"keep_rgb": True},
    "poor": {"quality": 5},
    "arithmetic comment": {"comment": b"\xff\xd9 no end"},
}


def encoded(image=NOISE, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def same(pixels, image):
    return torch.equal(pixels, torch.from_numpy(np.array(image)).reshape(*image.size[::-1], -1).permute(2, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_are_those_of_the_usual_reader(kind, mode, tmp_path):
    options = {} if mode == "L" and kind == "stored as RGB" else KINDS[kind]
    content = encoded(NOISE.convert(mode), **options)
    (tmp_path / "a.jpg").write_bytes(content)
    usual = read_image(tmp_path / "a.jpg")
    assert usual.mode == mode
    for source in (tmp_path / "a.jpg", content):
        quick = plain_jpeg(source)
        assert quick.size == usual.size
        assert same(quick.pixels(), usual)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(exif=exif)


def test_only_a_plain_jpeg_is_decoded_the_quick_way(tmp_path):
    png = io.BytesIO()
    NOISE.save(png, "PNG")
    several = io.BytesIO()
    NOISE.save(several, "MPO", save_all=True, append_images=[NOISE])
    odd = {
        "PNG": png.getvalue(),
        "several pictures": several.getvalue(),
        "CMYK": encoded(NOISE.convert("CMYK")),
        "turned": turned(6),
        "broken EXIF": encoded(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"),
        "no image": b"\xff\xd8\xff and nothing more",
        "empty": b"",
    }
    for name, content in odd.items():
        assert plain_jpeg(content) is None, name
    assert plain_jpeg(turned(1)) is not None
    assert plain_jpeg(tmp_path) is None
    assert plain_jpeg(tmp_path / "missing.jpg") is None
    assert plain_jpeg(encoded(), Decoding(max_pixels=161 * 119)) is not None
    assert plain_jpeg(encoded(), Decoding(max_pixels=161 * 119 - 1)) is None


def test_a_damaged_file_fails_exactly_where_the_usual_decoder_fails():
    draw = random.Random(0)
    sources = [encoded(**options) for options in KINDS.values()]
    failed = 0
    for _ in range(400):
        damaged = bytearray(draw.choice(sources))
        if draw.random() < 0.4:
            del damaged[draw.randrange(200, len(damaged)) :]
        for _ in range(draw.randrange(3)):
            damaged[draw.randrange(2, len(damaged))] = draw.randrange(256)
        quick = plain_jpeg(bytes(damaged))
        if quick is None:
            continue
        try:
            pixels = quick.pixels()
        except UndecodedError:
            failed += 1
            said = r"truncated|broken|cannot load"
            with pytest.raises(OSError, match=said), Image.open(io.BytesIO(damaged)) as image:
                image.load()
        else:
            assert same(pixels, read_image(bytes(damaged)))
    assert failed > 50


def test_a_decoder_of_other_values_or_none_leaves_all_to_the_usual_reader(monkeypatch):
    def darker(content):
        return plain(content) // 2

    def gone(content):
        raise AttributeError("'_OpNamespace' 'image' object has no attribute 'decode_jpeg'")

    name, plain = tensor_decoder()
    assert name in ("torchcodec", "torchvision")
    try:
        for decoders, found in (([gone, darker], None), ([darker, plain], "1")):
            tensor_decoder.cache_clear()
            named = [(str(number), decode) for number, decode in enumerate(decoders)]
            monkeypatch.setattr(jpeg_file, "_candidates", lambda named=named: iter(named))
            assert (tensor_decoder() or [None])[0] == found
            assert (plain_jpeg(encoded()) is None) == (found is None)
    finally:
        tensor_decoder.cache_clear()
