"""What checkpoints say about their images, in every form that the Hub and timm use."""

from __future__ import annotations

import pytest

from bbframe import Preprocessing

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # DINOv2, FocalNet: shorter side to 256, then the centre
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            {"size": (224, 224), "crop_pct": 0.875},
        ),
        # ConvNeXt, ResNet: a crop by share below 384 pixels, none from there on
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"size": (224, 224), "crop_pct": 0.875}),
        ({"size": 224, "crop_pct": 0.875}, {"size": (224, 224), "crop_pct": 0.875}),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
            {"size": (384, 384), "crop_pct": 1.0, "crop_mode": "squash"},
        ),
        # ViT, Swin: both sides at once, in the new form and the old
        ({"size": {"height": 96, "width": 64}}, {"size": (96, 64), "crop_pct": 1.0, "crop_mode": "squash"}),
        ({"size": 224}, {"size": (224, 224), "crop_pct": 1.0, "crop_mode": "squash"}),
        ({"size": [96, 64]}, {"size": (96, 64), "crop_pct": 1.0, "crop_mode": "squash"}),
        # BEiT in the old form: a crop size that is not used
        (
            {"size": 224, "crop_size": 224, "do_center_crop": False, "image_mean": HALF, "image_std": HALF},
            {"size": (224, 224), "crop_pct": 1.0, "crop_mode": "squash", "mean": HALF, "std": HALF},
        ),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, {"size": (224, 224), "crop_pct": 0.875}),
        # the nulls that new processors write
        (
            {"size": {"height": 8, "width": 8}, "crop_size": None, "do_center_crop": None, "crop_pct": None}
            | {"image_mean": None, "resample": None, "do_normalize": None},
            {"size": (8, 8), "crop_pct": 1.0, "crop_mode": "squash"},
        ),
        (
            {"size": 8, "resample": 2, "do_normalize": False},
            {
                "size": (8, 8),
                "crop_pct": 1.0,
                "crop_mode": "squash",
                "interpolation": "bilinear",
                "mean": (0.0,) * 3,
                "std": (1.0,) * 3,
            },
        ),
    ],
)
def test_every_form_of_the_hub_is_read(data, expected):
    assert Preprocessing.from_hub(data) == Preprocessing(**expected)


@pytest.mark.parametrize(
    "stated",
    [
        Preprocessing(),
        Preprocessing(mean=HALF, std=HALF, interpolation="bilinear"),
        Preprocessing(size=(96, 64), crop_pct=0.9, interpolation="nearest"),
        Preprocessing(size=(384, 384), crop_pct=0.95),
        Preprocessing(size=(512, 512), crop_pct=1.0, interpolation="lanczos"),
        Preprocessing(size=(96, 64), crop_pct=1.0, crop_mode="squash"),
    ],
)
def test_what_is_written_reads_back_equal(stated):
    assert Preprocessing.from_hub(stated.to_hub()) == stated


def test_the_shorter_side_is_rounded_down_as_in_the_data_module():
    assert Preprocessing(crop_pct=0.9).to_hub()["size"] == {"shortest_edge": 248}
    assert Preprocessing(crop_pct=0.875).to_hub()["size"] == {"shortest_edge": 256}


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: mean='grey' must be a list of numbers"):
        Preprocessing.from_hub({"image_mean": "grey"})
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: interpolation=7; choose from: "):
        Preprocessing.from_hub({"resample": 7})


def test_timms_entries_are_read():
    cfg = {"mean": HALF, "std": HALF, "input_size": (3, 288, 320), "interpolation": "bilinear", "crop_pct": 0.95}
    expected = {"mean": HALF, "std": HALF, "size": (288, 320), "interpolation": "bilinear", "crop_pct": 0.95}
    assert Preprocessing.from_timm(cfg) == Preprocessing(**expected)
    assert Preprocessing.from_timm({**cfg, "crop_mode": "squash"}) == Preprocessing(**expected, crop_mode="squash")
    assert Preprocessing.from_timm({}) == Preprocessing()


# v is a pixel of 0..255 as a processor sees it; ours is v / 255
PROCESSORS = {
    "usual": ({}, lambda v, m, s: (v / 255 - m) / s),
    "rounded": ({"rescale_factor": 0.00392157}, lambda v, m, s: (v / 255 - m) / s),
    "not rescaled": ({"do_rescale": False}, lambda v, m, s: (v - m) / s),
    "by 127.5": ({"rescale_factor": 1 / 127.5}, lambda v, m, s: (v / 127.5 - m) / s),
    "with an offset": ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, lambda v, m, s: (v / 127.5 - 1 - m) / s),
    "not normalised": ({"do_normalize": False}, lambda v, m, s: v / 255),
    "neither": ({"do_normalize": False, "do_rescale": False}, lambda v, m, s: v),
    "scaled alone": ({"do_normalize": False, "rescale_factor": 1 / 127.5}, lambda v, m, s: v / 127.5),
    "nulls": ({"do_rescale": None, "rescale_factor": None}, lambda v, m, s: (v / 255 - m) / s),
    "of ones": ({"do_rescale": False, "image_mean": [123, 117, 104], "image_std": [1, 1, 1]}, None),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_pixels_become_what_the_processor_makes_of_them(case):
    data, expected = PROCESSORS[case]
    mean, std = data.get("image_mean", [0.4, 0.5, 0.6]), data.get("image_std", [0.2, 0.25, 0.3])
    read = Preprocessing.from_hub({"size": 8, "image_mean": mean, "image_std": std, **data})
    for v in (0, 1, 128, 255):
        ours = [(v / 255 - m) / s for m, s in zip(read.mean, read.std, strict=True)]
        theirs = [(v - m) / s if expected is None else expected(v, m, s) for m, s in zip(mean, std, strict=True)]
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    again = Preprocessing.from_hub(read.to_hub())
    assert (again.mean, again.std) == (read.mean, read.std)


@pytest.mark.parametrize("key", ["do_resize", "do_flip_channel_order", "do_grayscale"])
def test_what_cannot_be_done_to_an_image_is_refused_by_name(key):
    bad = key != "do_resize"
    assert Preprocessing.refused({key: bad}).startswith(f"{key}={str(bad).lower()} ")
    assert Preprocessing.refused({key: not bad}) is None
    assert Preprocessing.refused({key: None}) is None


@pytest.mark.parametrize(
    "data",
    [
        {"image_std": [0.0, 0.2, 0.2]},
        {"image_std": [-1.0, 0.2, 0.2]},
        {"image_mean": [float("nan")] * 3},
        {"image_std": [float("inf")] * 3},
        {"rescale_factor": 0},
        {"rescale_factor": -1},
        {"rescale_factor": "1/255"},
        {"rescale_factor": True},
        {"rescale_factor": float("nan")},
        {"do_rescale": False, "image_mean": "grey"},
        {"size": 10**9},
        {"size": -4},
        {"size": {"height": 0, "width": 3}},
        {"size": {"shortest_edge": 224}, "crop_pct": 1e-9},
        {"size": 224, "crop_pct": -0.5},
    ],
)
def test_values_that_make_no_image_are_refused(data):
    with pytest.raises((ValueError, LookupError, TypeError), match=r"\S"):
        Preprocessing.from_hub({"size": 8, **data})


def test_it_says_in_words_what_it_does():
    said = "224 x 224 pixels, bicubic, center crop 0.875, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    assert str(Preprocessing()) == said
