"""Photos in a page: small, upright as they were read, and no more than there is room for."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from bbframe.report.page.thumbnails import SIDE, data_uri, read_thumbnails


def opened(uri):
    kind, _, text = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_tiny_image_stays_pixel_for_pixel(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6), np.uint8)).convert(mode)
    kind, seen = opened(data_uri(image))
    assert kind == "data:image/png"
    assert (np.asarray(seen) == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("size", "small"), [((1600, 400), (SIDE, 40)), ((120, 3200), (6, SIDE)), ((100, 50), (100, 50))]
)
def test_a_photo_keeps_its_shape(size, small):
    kind, seen = opened(data_uri(Image.linear_gradient("L").resize(size)))
    assert (kind, seen.size) == ("data:image/webp", small)
    bright = np.asarray(seen.convert("L")).astype(int)
    assert bright[-1].mean() - bright[0].mean() > 150


def test_photos_end_where_the_room_does():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    one = len(data_uri(noise))
    found = read_thumbnails(lambda index: noise, range(100), most_bytes=int(5.5 * one))
    assert len(found) == 5
    assert {size for _, size in found} == {(200, 200)}


def test_an_image_that_is_gone_is_a_reason():
    def read(index):
        if index == 1:
            raise OSError("b.png: no such\nfile")
        return Image.new("L", (8, 8))

    found = read_thumbnails(read, range(3), 10**6)
    assert [isinstance(item, tuple) for item in found] == [True, False, True]
    assert found[1] == "b.png: no such file"
