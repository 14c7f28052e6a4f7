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
