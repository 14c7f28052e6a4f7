"""Pyramids: strides, sizes and gradients of their levels."""

import math
import subprocess
import sys

import pytest
import torch
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from bbframe.heads.head_options import TWO_STAGE
from bbframe.heads.pyramids import FPN, ConvolvedLevels, SimplePyramid, SubsampledLevels, WholeMaxPool, make_pyramid
from bbframe.registry import find


def maps_of(channels, sizes):
    return [torch.randn(2, count, *size) for count, size in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6), (2, 3)], [(13, 7), (7, 4), (3, 2)], [(1, 5), (1, 3), (1, 1)]])
def test_an_fpn_keeps_the_size_of_every_map_odd_or_even(sizes):
    channels = [6, 10, 14]
    pyramid = FPN(channels, [8, 16, 32], 16)
    assert (pyramid.reads, pyramid.strides, pyramid.out_channels) == ([0, 1, 2], [8, 16, 32], 16)
    levels = pyramid(maps_of(channels, sizes))
    assert [tuple(x.shape) for x in levels] == [(2, 16, *size) for size in sizes]


@pytest.mark.parametrize(
    ("stride", "wanted", "strides"),
    [
        (16, (4, 8, 16, 32), [4, 8, 16, 32]),
        (8, (4, 8, 16, 32), [4, 8, 16, 32]),
        (14, (4, 8, 16, 32), [3.5, 7, 14, 28]),
        (14, (8, 16, 32), [7, 14, 28]),
        (4, (8, 16, 32), [8, 16, 32]),
        (32, (4, 8, 16, 32), [4, 8, 16, 32]),
    ],
)
@pytest.mark.parametrize("size", [(8, 16), (5, 7), (1, 3)])
def test_a_simple_pyramid_has_the_nearest_strides_that_its_map_can_reach(stride, wanted, strides, size):
    pyramid = SimplePyramid([5, 12], [stride, stride], 8, wanted)
    assert (pyramid.reads, pyramid.strides, pyramid.out_channels) == ([1], strides, 8)
    levels = pyramid([None, torch.randn(2, 12, *size)])
    assert [tuple(x.shape) for x in levels] == [
        (2, 8, *(math.ceil(side * stride / s) for side in size)) for s in strides
    ]


def test_a_pixel_of_a_simple_pyramid_sees_its_own_place():
    """Another value at the right end of the map changes the right end of every level, not the left."""
    pyramid = SimplePyramid([8], [16], 8, TWO_STAGE).eval()
    x = torch.randn(1, 8, 4, 16)
    y = x.clone()
    y[..., -1] += 1
    for a, b in zip(pyramid([x]), pyramid([y]), strict=True):
        changed = (a != b).any(dim=(0, 1, 2))
        assert changed[-1]
        assert not changed[: len(changed) // 2].any()


@pytest.mark.parametrize(
    "pyramid", [FPN([6, 6, 6], [8, 16, 32], 8), SimplePyramid([6] * 3, [16] * 3, 8, (4, 8, 16, 32))]
)
def test_gradients_reach_every_weight_and_every_map_that_is_read(pyramid):
    maps = [x.requires_grad_() for x in maps_of([6] * 3, [(12, 9), (6, 5), (3, 3)])]
    sum((x * torch.randn_like(x)).sum() for x in pyramid(maps)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())
    assert [i for i, x in enumerate(maps) if x.grad is not None] == pyramid.reads


def test_maps_of_one_stride_make_a_simple_pyramid_unless_told_otherwise():
    def kind(name, strides):
        return type(make_pyramid(name, [8] * len(strides), strides, 8, (8, 16, 32)))

    assert kind(None, [8, 16, 32]) is FPN
    assert kind(None, [16]) is kind(None, [14, 14, 14]) is SimplePyramid
    assert kind("simple", [8, 16, 32]) is SimplePyramid
    assert kind("fpn", [16]) is FPN


@pytest.mark.parametrize("strides", [[4, 4, 8], [14, 14], [16, 8]])
def test_maps_that_do_not_rise_are_refused(strides):
    fix = str(sorted(set(strides))).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(
        ValueError, match=rf"rising strides, not .* backbone.out_strides={fix}, or head.pyramid=simple"
    ):
        FPN([8] * len(strides), strides, 8)


def test_two_convolved_levels_are_those_of_torchvision():
    ours, theirs = ConvolvedLevels(8, 2), LastLevelP6P7(8, 8)
    for conv, name in zip(ours.convs, ("p6", "p7"), strict=True):
        conv.load_state_dict(getattr(theirs, name).state_dict())
    levels = maps_of([8, 8], [(10, 14), (5, 7)])
    expected, _ = theirs(list(levels), levels, ["0", "1"])
    torch.testing.assert_close(ours(levels), expected)


def test_a_subsampled_level_is_that_of_torchvision():
    levels = maps_of([8, 8], [(10, 14), (5, 7)])
    expected, _ = LastLevelMaxPool()(list(levels), levels, ["0", "1"])
    torch.testing.assert_close(SubsampledLevels(1)(levels), expected)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("kind", [lambda count: ConvolvedLevels(8, count), SubsampledLevels])
def test_any_number_of_levels_may_follow_each_half_the_one_before(kind, count):
    levels = kind(count)(maps_of([8], [(5, 7)]))
    assert [tuple(x.shape[-2:]) for x in levels] == [(5, 7), (3, 4), (2, 2), (1, 1)][: count + 1]


@pytest.mark.parametrize(
    ("name", "declared", "wanted"),
    [
        ("fcos", [4, 4, 8, 16, 32], [8, 16, 32]),
        ("mask_rcnn", [4, 4, 8, 16, 32], [4, 8, 16, 32]),
        ("retinanet", [8, 16, 32, 64], [8, 16, 32]),
        ("faster_rcnn", [4, 8], [4, 8]),
        ("fcos", [14] * 13, [14]),
        ("fcos", [2, 4], [4]),
        ("fcos", [2, 4, 6, 12], [6, 12]),
        ("mask_rcnn", [2, 4, 6, 12], [4, 6, 12]),
        ("fcos", [4, 64], [4, 64]),
    ],
)
def test_the_strides_that_a_detector_reads_of_those_that_a_backbone_has(name, declared, wanted):
    assert find("head", name).options().preferred_strides(declared) == wanted


def test_strides_are_known_without_torch():
    code = "import sys, bbframe.heads.levels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (1, 3), (5, 4)])
def test_whole_max_pooling_is_torchs_of_ceil_mode(size, sides):
    x = torch.randn(2, 3, *sides)
    assert torch.equal(WholeMaxPool(size)(x), torch.nn.functional.max_pool2d(x, size, ceil_mode=True))
