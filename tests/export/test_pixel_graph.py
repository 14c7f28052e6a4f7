"""Images are resized in a graph as PIL resizes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from bbframe.export.network_graphs import pixel_graph
from bbframe.preprocessing import BoxPreprocessing, Preprocessing

SIZES = ((160, 107), (37, 51), (250, 11), (13, 400), (96, 96), (9, 9), (128, 128))


def picture(width, height):
    """Edges, slopes and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width))
    waves = np.stack([127 + 127 * np.sin(columns / 9 + k) * np.cos(rows / (5 + k)) for k in range(3)], axis=2)
    waves[rows // 8 % 2 == columns // 8 % 2] //= 2
    return Image.fromarray(np.clip(waves + noise[..., None], 0, 255).astype(np.uint8))


def levels(preprocessing, image):
    """The levels 0..255 of a graph and of the preprocessing itself."""
    found = pixel_graph(preprocessing)(pil_to_tensor(image)[None])
    found = found[0] if isinstance(found, tuple) else found
    mean, std = (255 * torch.tensor(x).view(-1, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    return found[0] * std + mean, preprocessing.pixels(image).float()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("mode", "share"), [("center", 0.875), ("center", 1.0), ("squash", 1.0)])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_a_crop_is_that_of_pil(interpolation, mode, share, size):
    preprocessing = Preprocessing(size=size, crop_pct=share, crop_mode=mode, interpolation=interpolation)
    for sides in SIZES:
        ours, theirs = levels(preprocessing, picture(*sides))
        apart = (ours - theirs).abs()
        assert apart.shape == (3, *size)
        # Pillow 13 resizes columns first where a height shrinks most; where a filter overshoots, that is seen
        overshoots = interpolation != "bilinear"
        assert (apart > 1.01).float().mean() <= 0.025 * overshoots, sides
        assert apart.max() < (16 if overshoots else 1.01), sides


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_rows_and_then_columns_are_those_of_pil(interpolation):
    preprocessing = Preprocessing(size=(64, 48), crop_pct=1.0, crop_mode="squash", interpolation=interpolation)
    for width, height in SIZES:
        image = picture(width, height)
        ours, _ = levels(preprocessing, image)
        code = Image.Resampling[interpolation.upper()]
        rows = image.resize((48, height), code)  # in two calls, so that their order is given
        assert (ours - pil_to_tensor(rows.resize((48, 64), code)).float()).abs().max() < 1.01


@pytest.mark.parametrize(("shorter", "longer"), [(64, 100), (64, None), (None, 90), (None, None), (200, 333)])
def test_a_detectors_image_is_that_of_pil(shorter, longer):
    preprocessing = BoxPreprocessing(min_size=shorter, max_size=longer, interpolation="bilinear")
    for sides in SIZES:
        ours, theirs = levels(preprocessing, picture(*sides))
        assert ours.shape == theirs.shape, sides
        assert (ours - theirs).abs().max() < 1.01, sides
        _, scale = pixel_graph(preprocessing)(pil_to_tensor(picture(*sides))[None])
        assert scale.tolist() == pytest.approx(preprocessing.scale(sides))


def test_grey_is_that_of_pil():
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5,), std=(0.5,), interpolation="bilinear")
    ours, theirs = levels(preprocessing, picture(90, 70))
    assert ours.shape == (1, 32, 32)
    assert (ours - theirs).abs().max() < 1.01


def test_nearest_is_refused():
    with pytest.raises(ValueError, match="preprocessing=true cannot compute interpolation=nearest as PIL does"):
        pixel_graph(Preprocessing(interpolation="nearest"))
