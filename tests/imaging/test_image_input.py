"""Whatever a caller means by an image becomes the same picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.imaging.image_input import as_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
GREY = PIXELS[..., 0]


def of_file(tmp_path, kind):
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    return {"path": path, "text": str(path), "bytes": path.read_bytes(), "file": io.BytesIO(path.read_bytes())}[kind]


SAME = {
    "pil": Image.fromarray(PIXELS),
    "array": PIXELS,
    "channels first": np.moveaxis(PIXELS, 2, 0),
    "numbers": PIXELS / 255,
    "float32": (PIXELS / 255).astype(np.float32),
    "whole numbers": PIXELS.astype(np.int64),
    "16 bits": PIXELS.astype(np.uint16) * 257,
    "tensor": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor, channels last": torch.from_numpy(PIXELS),
    "tensor of numbers": torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
    "with alpha": np.dstack([PIXELS, np.full((9, 7), 255, np.uint8)]),
    "reversed rows": PIXELS[::-1][::-1],
}


@pytest.mark.parametrize("given", SAME.values(), ids=SAME.keys())
def test_an_image_is_the_same_in_every_form(given):
    (picture,), single = as_pictures(given)
    assert single
    assert (picture.mode, picture.size) == ("RGB", (7, 9))
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file"])
def test_a_file_is_the_same_in_every_form(tmp_path, kind):
    (picture,), single = as_pictures(of_file(tmp_path, kind))
    assert single
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)


@pytest.mark.parametrize("given", [GREY, GREY[..., None], GREY[None], Image.fromarray(GREY), torch.from_numpy(GREY)])
def test_greyscale_images_stay_grey(given):
    (picture,), _ = as_pictures(given)
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), GREY)


def test_black_and_white_are_levels_of_grey():
    (picture,), _ = as_pictures(GREY > 100)
    np.testing.assert_array_equal(np.asarray(picture), np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize(
    "several",
    [
        [PIXELS, Image.fromarray(PIXELS)],
        (PIXELS, PIXELS),
        iter([PIXELS, PIXELS]),
        np.stack([PIXELS, PIXELS]),
        torch.from_numpy(np.stack([PIXELS, PIXELS])).permute(0, 3, 1, 2),
    ],
)
def test_several_images_are_several(several):
    pictures, single = as_pictures(several)
    assert (len(pictures), single) == (2, False)
    assert as_pictures([]) == ([], False)


def test_a_pil_image_is_turned_and_laid_on_white_as_its_file_is(tmp_path):
    turned = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.fromarray(np.dstack([PIXELS, GREY]))
    clear.save(tmp_path / "clear.png")
    palette = Image.fromarray(GREY).convert("P")
    palette.save(tmp_path / "palette.png", transparency=3)
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    for path in sorted(tmp_path.iterdir()):
        (of_path,), _ = as_pictures(path)
        with Image.open(path) as image:
            (of_image,), _ = as_pictures(image)
        assert (of_path.mode, of_path.size) == (of_image.mode, of_image.size), path.name
        np.testing.assert_array_equal(np.asarray(of_path), np.asarray(of_image), err_msg=path.name)


REFUSED = {
    "None": (None, "an image is a PIL image, a path, .*; this is a NoneType"),
    "number": (3, "this is a int"),
    "mapping": ({"image": 1}, "this is a dict"),
    "a list in a list": ([[1, 2], [3, 4]], "this is a list"),
    "normalised": (PIXELS / 127.5 - 1, r"lie in -1..0.95\d*, not in 0..1; is it normalised already"),
    "0..255 as float": (PIXELS.astype(float), r"\(float64\) lie in 0..249, not in 0..1"),
    "nan": (np.full((4, 4, 3), np.nan), "lie in nan..nan"),
    "12-bit integers": (PIXELS.astype(np.int32) * 16, r"lie in 0..3984, not in 0..255"),
    "two channels": (np.zeros((8, 9, 2), np.uint8), "of 8x9x2 has 2 channels; give 1, 3 or 4"),
    "five axes": (np.zeros((1, 1, 8, 9, 3), np.uint8), "an array of 1x1x8x9x3 is no image"),
    "empty": (np.zeros((0, 9, 3), np.uint8), "an array of 0x9x3 is no image"),
    "line": (torch.zeros(7), "a tensor of 7 is no image"),
    "bytes": (b"GIF89", "the bytes given are no image that can be read"),
    "missing": ("nothing/here.png", "nothing/here.png: no such file"),
    "URL": ("https://example.org/x.png", "is a URL; download it"),
    "32 bits": (Image.fromarray(GREY.astype(np.int32)), "32-bit pixels"),
}


@pytest.mark.parametrize(("given", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_image_is_refused_in_one_line(given, text):
    with pytest.raises(ValueError, match=text) as error:
        as_pictures(given)
    assert "\n" not in str(error.value)


def test_a_folder_is_refused_with_what_to_type(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; give its files: sorted\(Path\("):
        as_pictures(Path(tmp_path))
