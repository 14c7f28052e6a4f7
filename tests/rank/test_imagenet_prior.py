"""The published accuracies are data: complete, plausible, and of variants that there are."""

import yaml

from bbframe.app.places import CONF
from bbframe.rank.imagenet_prior import read_priors


def test_every_figure_is_a_share_of_images_at_a_size():
    found = read_priors()
    assert len(found) > 100
    for name, row in found.items():
        assert row["name"] == name
        assert 50 < row["top1"] < 95
        assert 96 <= row["image_size"] <= 1024


def test_most_variants_that_timm_has_with_a_classifier_have_a_figure():
    names = {yaml.safe_load(path.read_text()).get("timm_name") for path in (CONF / "backbone").glob("*.yaml")}
    without = ("_in22k", "lvd142m", "lvd1689m", "sat493m", ".mae")  # a classifier of ImageNet-1k
    names = {name for name in names if (name and not name.endswith(without)) or name in read_priors()}
    assert len(names - read_priors().keys()) <= 2  # BEiT's of 22,000 classes


def test_of_two_sizes_the_better_figure_counts():
    assert read_priors()["resnet50.a1_in1k"] == {"top1": 81.24, "name": "resnet50.a1_in1k", "image_size": 288}
