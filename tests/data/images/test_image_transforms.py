"""Sizes, crops and channels of what leaves a transform."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from bbframe.data.images.image_options import AugmentOptions
from bbframe.data.images.image_transforms import (
    ByteRandomResizedCrop,
    batch_mix,
    eval_transform,
    train_transform,
)
from bbframe.data.seeds import torch_seed
from bbframe.imaging.image_fit import Fit, normalisation
from bbframe.preprocessing import Preprocessing

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
PLAIN = Preprocessing(size=(32, 32), crop_pct=1.0, mean=(0.5, 0.4, 0.3))
EACH = {
    "nothing": {},
    "crop": {"crop_scale": (0.3, 0.6)},
    "flip": {"flip": True},
    "vertical_flip": {"vertical_flip": True},
    "degrees": {"degrees": 30.0},
    "translate": {"translate": 0.3},
    "color_jitter": {"color_jitter": (0.4, 0.4, 0.0, 0.0)},
    "saturation": {"color_jitter": (0.0, 0.0, 0.9, 0.4)},
    "randaugment": {"auto_augment": "randaugment"},
    "trivialaugment": {"auto_augment": "trivialaugment"},
    "autoaugment": {"auto_augment": "autoaugment"},
    "random_erasing": {"random_erasing": 1.0},
}


def picture(mode="RGB", size=(53, 37)):
    return Image.fromarray(NOISE).resize(size).convert(mode)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (40, 24), (64, 64)])
@pytest.mark.parametrize("source", [(53, 37), (37, 53), (8, 8), (200, 3)])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_any_size_gives_the_declared_size(size, source, crop_mode):
    transform = eval_transform(Preprocessing(size=size, crop_mode=crop_mode), 3)
    assert transform(picture(size=source)).shape == (3, *size)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("source", [(53, 37), (37, 53), (64, 64)])
def test_centre_crop_is_torchvisions(interpolation, source):
    ours = eval_transform(Preprocessing(size=(28, 28), interpolation=interpolation, crop_pct=0.9), 3)
    resize = v2.Resize(31, InterpolationMode(interpolation))
    theirs = v2.Compose([resize, v2.CenterCrop(28), v2.PILToTensor()])
    assert torch.equal(ours(picture(size=source)), theirs(picture(size=source)))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("source", [(53, 37), (500, 375)])
def test_a_random_crop_is_torchvisions_but_for_rounding(interpolation, mode, source):
    ours = ByteRandomResizedCrop((28, 40), (0.35, 1.0), interpolation=InterpolationMode(interpolation))
    theirs = v2.RandomResizedCrop((28, 40), (0.35, 1.0), interpolation=InterpolationMode(interpolation))
    image = picture(mode, source).point(lambda value: 64 + value // 2)  # nothing overshoots
    for seed in range(5):
        with torch_seed(seed):
            a = ours(image)
        with torch_seed(seed):
            b = theirs(image)
        assert (a.mode, a.size) == (b.mode, b.size) == (mode, (40, 28))
        difference = np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()
        assert difference <= (1 if interpolation in ("bilinear", "bicubic") else 0)


def test_the_resize_before_the_crop_is_what_the_hub_says():
    """Division and multiplication by the same number do not always cancel: 224 / (224 / 375) is below 375."""
    for edge in range(224, 400):
        hub = {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": 224}
        assert Fit(Preprocessing.from_hub(hub)).cover == (edge, edge)


def test_a_wide_target_keeps_the_aspect_ratio():
    """A square target in the middle of the source: 10x10 of it seen as 20x20, whatever is cropped around."""
    source = Image.new("L", (60, 40))
    source.paste(255, (25, 15, 35, 25))
    seen = eval_transform(Preprocessing(size=(40, 80), crop_pct=0.5, interpolation="nearest"), 1)(source)[0]
    rows, columns = seen.nonzero().unbind(1)
    assert len(rows.unique()) == pytest.approx(len(columns.unique()), abs=1)
    assert len(rows.unique()) == pytest.approx(160 / 60 * 10, abs=1)


def test_squash_shows_the_whole_image():
    source = Image.new("L", (60, 20))
    source.paste(255, (0, 0, 30, 20))
    seen = eval_transform(Preprocessing(size=(16, 16), crop_mode="squash", interpolation="nearest"), 1)(source)[0]
    assert (seen[:, :8] == 255).all()
    assert (seen[:, 8:] == 0).all()


@pytest.mark.parametrize("source", [(600, 400), (300, 500), (64, 64), (9000, 40), (31, 800)])
@pytest.mark.parametrize("target", [(32, 32), (24, 48)])
@pytest.mark.parametrize(("crop", "mode"), [(1.0, "center"), (0.7, "center"), (1.0, "squash")])
def test_what_is_seen_of_an_image_is_what_reaches_the_network(source, target, crop, mode):
    """Two ramps, from left to right and from top to bottom, begin and end where it says."""
    fit = Fit(Preprocessing(size=target, crop_pct=crop, crop_mode=mode, interpolation="bilinear"))
    left, top, right, bottom = fit.seen(source)
    ramp = Image.linear_gradient("L").resize(source)
    down = np.asarray(fit(ramp)).astype(float)[:, 0] / 255
    across = np.asarray(fit(Image.linear_gradient("L").rotate(90).resize(source))).astype(float)[0] / 255
    assert (down[0], down[-1]) == pytest.approx((top, bottom), abs=0.04)
    assert (across[0], across[-1]) == pytest.approx((left, right), abs=0.04)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("mode", "num_channels"), [("RGB", 3), ("L", 3), ("RGB", 1), ("L", 1)])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_an_augmentation_keeps_size_and_channels(name, mode, num_channels, size):
    if name == "saturation" and num_channels == 1:
        pytest.skip("refused, see below")
    mean = normalisation(PLAIN.mean, num_channels)
    transform = train_transform(replace(PLAIN, size=size, mean=mean), num_channels, AugmentOptions(**EACH[name]))
    for _ in range(5):
        seen = transform(picture(mode))
        assert seen.shape == (num_channels, *size)
        assert seen.dtype == torch.uint8
        assert mode == "RGB" or (seen == seen[:1]).all() or name == "random_erasing"


@pytest.mark.parametrize("name", EACH)
def test_an_augmentation_changes_the_image_and_repeats_with_its_seed(name):
    transform = train_transform(PLAIN, 3, AugmentOptions(**EACH[name]))

    def draw(seed):
        with torch_seed(seed):
            return transform(picture())

    plain = eval_transform(PLAIN, 3)(picture())
    changed = [not torch.equal(draw(seed), plain) for seed in range(10)]
    assert any(changed) == (name != "nothing")
    assert all(torch.equal(draw(seed), draw(seed)) for seed in range(10))


def test_flip_mirrors_left_and_right_only():
    plain = eval_transform(PLAIN, 3)(picture())
    for option, mirrored in (("flip", plain.flip(2)), ("vertical_flip", plain.flip(1))):
        transform = train_transform(PLAIN, 3, AugmentOptions(**{option: True}))
        seen = [transform(picture()) for _ in range(20)]
        assert {torch.equal(image, mirrored) for image in seen} == {True, False}
        assert all(torch.equal(image, mirrored) or torch.equal(image, plain) for image in seen)


def test_erased_pixels_are_zero_once_normalised():
    seen = train_transform(PLAIN, 3, AugmentOptions(random_erasing=1.0))(Image.new("RGB", (32, 32), "white"))
    assert {tuple(pixel) for pixel in seen.flatten(1).T.tolist()} == {(255, 255, 255), (128, 102, 76)}


def test_no_augmentation_is_the_evaluation():
    image = picture()
    assert torch.equal(train_transform(PLAIN, 3, None)(image), eval_transform(PLAIN, 3)(image))


def test_colour_changes_of_greyscale_images_are_refused():
    with pytest.raises(ValueError, match="saturation or hue, which greyscale images"):
        train_transform(PLAIN, 1, AugmentOptions(color_jitter=(0.1, 0.1, 0.1, 0.0)))


@pytest.mark.parametrize("options", [{"mixup": 0.5}, {"cutmix": 0.5}, {"mixup": 0.5, "cutmix": 0.5}])
def test_mixing_keeps_the_share_of_each_label(options):
    """Images of one colour a class: the mean of the mixed image is the mean of the mixed label."""
    label = torch.tensor([0, 1, 1, 0])
    image = label.float().view(4, 1, 1, 1).expand(4, 3, 16, 16)
    seen, soft = batch_mix(AugmentOptions(**options), 2)(image, label)
    assert soft.shape == (4, 2)
    assert torch.allclose(soft.sum(1), torch.ones(4))
    assert torch.allclose(seen.mean((1, 2, 3)), soft[:, 1], atol=1e-5)


def test_without_alphas_nothing_is_mixed():
    assert batch_mix(AugmentOptions(), 2) is None
    assert batch_mix(None, 2) is None


@pytest.mark.parametrize(
    ("values", "num_channels", "expected"),
    [
        ((1.0, 2.0, 6.0), 3, (1.0, 2.0, 6.0)),
        ((1.0, 2.0, 6.0), 1, (3.0,)),
        ((2.0,), 3, (2.0, 2.0, 2.0)),
        ((2.0,), 1, (2.0,)),
    ],
)
def test_mean_and_std_follow_the_channels(values, num_channels, expected):
    assert normalisation(values, num_channels) == expected
