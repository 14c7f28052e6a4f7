"""The polygons around masks: they enclose what the mask covers, with few corners."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from bbframe.report.page.mask_outlines import CORNERS, mask_outline
from bbframe.tasks.mask_rle import encode_mask


def drawn(rings, height, width):
    """The mask (H, W) that a page fills: what an odd number of rings enclose."""
    filled = np.zeros((height, width), bool)
    for ring in rings:
        image = Image.new("1", (width, height))
        ImageDraw.Draw(image).polygon([value - 0.5 for value in ring], fill=1)  # Pillow counts from pixels' middles
        filled ^= np.asarray(image)
    return filled


def disc(height, width, radius, hole=0):
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(y - height / 2, x - width / 2)
    return torch.from_numpy((distance <= radius) & (distance >= hole))


@pytest.mark.parametrize(("size", "radius", "hole", "rings"), [(60, 20, 0, 1), (60, 25, 12, 2), (900, 400, 200, 2)])
def test_the_polygons_enclose_the_mask(size, radius, hole, rings):
    mask = disc(size, size + 10, radius, hole)
    found = mask_outline(encode_mask(mask))
    assert len(found) == rings
    assert max(map(len, found)) <= 2 * CORNERS
    again = drawn(found, *mask.shape)
    common, both = (again & mask.numpy()).sum(), (again | mask.numpy()).sum()
    assert common / both > 0.9


def test_a_mask_at_the_border_and_one_pixel_and_none():
    mask = torch.zeros(9, 7)
    assert mask_outline(encode_mask(mask)) == []
    mask[0, 0] = 1
    ((*corners,),) = mask_outline(encode_mask(mask))
    assert sorted(zip(corners[::2], corners[1::2], strict=True)) == [(0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5)]
    mask[:] = 1
    assert {value for ring in mask_outline(encode_mask(mask)) for value in (min(ring), max(ring))} == {0.0, 9.0}
