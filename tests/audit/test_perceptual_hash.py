"""The perceptual hash: what changes it and what does not, and pairs of near hashes against all pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bbframe.audit.perceptual_hash import differing_bits, perceptual_hash, similar_hashes


def photo(seed, size=(160, 120)):
    """A smooth picture with some grain."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + random.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8))


def as_jpeg(image, quality):
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality)
    return Image.open(packed)


def bits_between(one, other):
    return int(differing_bits(*(np.array([perceptual_hash(image)]) for image in (one, other)))[0])


@pytest.mark.parametrize("seed", range(6))
def test_compression_and_size_change_few_bits_and_another_picture_many(seed):
    image = photo(seed)
    assert bits_between(image, as_jpeg(image, 95)) <= 2
    assert bits_between(image, as_jpeg(image, 40)) <= 6
    assert bits_between(image, image.resize((80, 60))) <= 6
    assert bits_between(image, image.convert("RGBA")) == 0
    assert bits_between(image, photo(seed + 100)) > 12


def test_an_image_of_one_colour_has_no_bits():
    assert perceptual_hash(Image.new("RGB", (30, 40), "red")) == 0
    assert perceptual_hash(as_jpeg(Image.new("L", (30, 40), 200), 60)) == 0


@pytest.mark.parametrize("most", [0, 3, 6])
def test_all_near_pairs_are_found_and_no_others(most):
    random = np.random.default_rng(1)
    hashes = random.integers(0, 2**63, 200, dtype=np.uint64)
    for place in range(100, 200):  # most have a twin, up to ten bits away
        flips = random.choice(64, int(random.integers(0, 10)), replace=False)
        hashes[place] = hashes[place - 100] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    pairs, bits = similar_hashes(hashes, most)
    expected = {
        (i, j): int(hashes[i] ^ hashes[j]).bit_count()
        for i in range(200)
        for j in range(i + 1, 200)
        if int(hashes[i] ^ hashes[j]).bit_count() <= most
    }
    assert dict(zip(map(tuple, pairs.tolist()), bits.tolist(), strict=True)) == expected


def test_many_equal_hashes_make_a_pair_each():
    pairs, bits = similar_hashes(np.zeros(5000, np.uint64))
    assert len(pairs) == 4999
    assert (pairs[:, 0] == 0).all()
    assert not bits.any()
