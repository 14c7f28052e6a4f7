"""The options of rank stand beside the overrides of a run, and a wrong one is one line that says what to type."""

import pytest

from bbframe.rank.rank_options import read_rank_arguments


def test_options_and_overrides_are_told_apart():
    options, others = read_rank_arguments(
        ["backbones=[resnet18, swin*]", "data=image_folder", "images=200", "budget=1h30m", "seeds=0,1", "seed=3"]
    )
    assert options.backbones == ("resnet18", "swin*")
    assert (options.images, options.budget, options.seeds) == (200, "1h30m", (0, 1))
    assert others == ["data=image_folder", "seed=3"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("backbone=resnet18", "backbones="),
        ("backbone.pretrained=true", "backbones="),
        ("rerun=x", "leave rerun= out"),
        ("ckpt_path=x", "backbones=<run folder>"),
        ("images=3", "images=3"),
        ("images=many", "images="),
        ("finalists=-1", "finalists=-1"),
        ("pretrained=maybe", "pretrained="),
        ("seeds=[]", "seeds="),
        ("image_size=0", "image_size="),
        ("image_size=[1", "image_size=[1"),
    ],
)
def test_a_wrong_option_is_one_line(argument, message):
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        read_rank_arguments([argument])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
