"""Detectors: the losses and detections of torchvision's own models, for levels of any stride and number."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.poolers import LevelMapper as TheirMapper

from bbframe.heads.anchors import Anchors, LevelMapper, region_pool
from bbframe.heads.detectors import pad, paste
from bbframe.registry import find, make

NAMES = ["fcos", "retinanet", "faster_rcnn", "mask_rcnn"]
CLASSES = 5
MODELS = {"fcos": FCOS, "retinanet": RetinaNet, "faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN}
LOSSES = {
    "fcos": {"classification", "bbox_regression", "bbox_ctrness"},
    "retinanet": {"classification", "bbox_regression"},
    "faster_rcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
    "mask_rcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "loss_mask"},
}


class Net(nn.Module):
    """A map for each stride, as a backbone gives them."""

    def __init__(self, channels, strides):
        super().__init__()
        self.channels, self.strides = channels, strides
        self.convs = nn.ModuleList(
            nn.Conv2d(3, count, stride, stride) for count, stride in zip(channels, strides, strict=True)
        )

    def forward(self, x):
        return [conv(x).relu() for conv in self.convs]


def hierarchical(name):
    strides = [4, 8, 16, 32] if "rcnn" in name else [8, 16, 32]
    return Net([6] * len(strides), strides)


def detector_on(net, name, **options):
    chosen = find("head", name).options(**{"channels": 32, **options})
    return make("head", chosen, net.channels, net.strides, CLASSES)


def level_sizes(detector, maps):
    return [tuple(x.shape[-2:]) for x in detector.extra(detector.pyramid(maps))]


def livelier(detector):
    """Weights of such a size that scores differ and no two boxes tie."""
    for key, parameter in detector.model.named_parameters():
        if "logits" in key or "cls_score" in key or "bbox" in key:
            nn.init.normal_(parameter, std=0.05)
    return detector


def random_targets(sizes, counts, masks):
    targets = []
    for (height, width), count in zip(sizes, counts, strict=True):
        corner = torch.rand(count, 2) * torch.tensor([width, height]) * 0.6
        extent = (0.1 + 0.3 * torch.rand(count, 2)) * torch.tensor([width, height])
        target = {"boxes": torch.cat([corner, corner + extent], dim=1), "labels": torch.randint(CLASSES, (count,))}
        if masks:
            target["masks"] = torch.randint(2, (count, height, width), dtype=torch.uint8)
        targets.append(target)
    return targets


def batch(net, sizes, counts, masks=False, multiple=32):
    images = [torch.randn(3, *size) for size in sizes]
    x, sizes = pad(images, multiple)
    return images, net(x), sizes, random_targets(sizes, counts, masks)


class Whole(nn.Module):
    """Backbone, pyramid and further levels as torchvision's models take them."""

    def __init__(self, net, detector):
        super().__init__()
        self.net, self.pyramid, self.extra = net, detector.pyramid, detector.extra
        self.out_channels = detector.pyramid.out_channels

    def forward(self, x):
        return {str(i): level for i, level in enumerate(self.extra(self.pyramid(self.net(x))))}


def torchvisions(name, net, detector):
    """torchvision's own model with the weights of ours, everything else as it makes it itself."""
    if "rcnn" in name:
        sizes, ratios, key = tuple((8.0 * s,) for s in detector.strides), (0.5, 1.0, 2.0), "rpn_anchor_generator"
    elif name == "retinanet":
        sizes = tuple(tuple(4.0 * s * 2 ** (i / 3) for i in range(3)) for s in detector.strides)
        ratios, key = (0.5, 1.0, 2.0), "anchor_generator"
    else:
        sizes, ratios, key = tuple((float(s),) for s in detector.strides), (1.0,), "anchor_generator"
    anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))
    anchors.cell_anchors = [  # theirs are rounded to whole pixels
        torch.tensor([[-s / r**0.5, -s * r**0.5, s / r**0.5, s * r**0.5] for r in ratios for s in level]) / 2
        for level in sizes
    ]
    more = {"score_thresh": 0.05} if name == "fcos" else {}
    theirs = MODELS[name](
        Whole(net, detector),
        CLASSES + ("rcnn" in name),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=128,  # so that nothing is resized in eval mode,
        _skip_resize=True,  # nor in training, where it would draw random numbers too
        **{key: anchors, "box_detections_per_img" if "rcnn" in name else "detections_per_img": 30},
        **more,
    )
    done = theirs.load_state_dict(detector.model.state_dict(), strict=False)
    assert not done.unexpected_keys
    assert all(key.startswith("backbone.") for key in done.missing_keys)
    return theirs


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_torchvision(name):
    torch.manual_seed(0)
    net = hierarchical(name)
    ours = livelier(detector_on(net, name, channels=64))
    theirs = torchvisions(name, net, ours)
    # theirs takes strides from sizes: they must be multiples of the coarsest
    images, maps, sizes, targets = batch(net, [(128, 256), (128, 200)], [4, 2], name == "mask_rcnn", multiple=128)
    torch.manual_seed(1)
    losses = ours(maps, sizes, targets)
    torch.manual_seed(1)
    shift = 1 if "rcnn" in name else 0
    expected = theirs(images, [{**target, "labels": target["labels"] + shift} for target in targets])
    assert set(losses) == LOSSES[name]
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    assert all(value > 0 for value in losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_detections_are_those_of_torchvision(name):
    torch.manual_seed(0)
    net = hierarchical(name)
    ours = livelier(detector_on(net, name, channels=64, detections_per_image=30)).eval()
    theirs = torchvisions(name, net, ours).eval()
    images, maps, sizes, _ = batch(net, [(128, 256), (128, 200)], [0, 0], multiple=128)
    with torch.no_grad():
        found, expected = ours(maps, sizes), theirs(images)
    for row, other, size in zip(found, expected, sizes, strict=True):
        assert len(row["boxes"]) > 10
        if "rcnn" in name:
            other["labels"] -= 1
        if "masks" in other:
            other["masks"] = other["masks"][:, 0] > 0.5
            row["masks"] = paste(row["masks"], row["boxes"], size)
        torch.testing.assert_close(row, other, rtol=1e-5, atol=1e-5)
        assert 0 <= row["labels"].min() <= row["labels"].max() < CLASSES
        assert row["scores"].diff().max() <= 0


@pytest.mark.parametrize("counts", [[3, 0], [0, 0], [0, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_images_without_boxes_give_finite_losses_and_gradients_everywhere(name, counts):
    torch.manual_seed(0)
    net = hierarchical(name)
    detector = detector_on(net, name)
    _, maps, sizes, targets = batch(net, [(96, 64), (70, 90)], counts, name == "mask_rcnn")
    losses = detector(maps, sizes, targets)
    assert set(losses) == LOSSES[name]
    assert all(torch.isfinite(value) and value.shape == () for value in losses.values())
    sum(losses.values()).backward()
    for module in (net, detector):
        assert not [key for key, p in module.named_parameters() if p.grad is None]
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("strides", [[14], [14, 14], [4]])
@pytest.mark.parametrize("name", NAMES)
def test_a_plain_backbone_trains_and_detects_on_a_simple_pyramid(name, strides):
    torch.manual_seed(0)
    net = Net([16] * len(strides), strides)
    detector = livelier(detector_on(net, name, detections_per_image=20))
    assert (detector.reads, detector.multiple) == ([len(strides) - 1], strides[-1])
    _, maps, sizes, targets = batch(net, [(70, 99), (63, 40)], [2, 3], name == "mask_rcnn", detector.multiple)
    losses = detector(maps, sizes, targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())
    with torch.no_grad():
        found = detector.eval()(maps, sizes)
    for row, (height, width) in zip(found, sizes, strict=True):
        assert (row["boxes"] >= 0).all()
        assert (row["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert ("masks" in row) == (name == "mask_rcnn")
        if name == "mask_rcnn":
            assert tuple(row["masks"].shape) == (len(row["boxes"]), 1, 28, 28)
            masks = paste(row["masks"], row["boxes"], (height, width))
            assert masks.dtype == torch.bool
            assert tuple(masks.shape) == (len(row["boxes"]), height, width)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_above_the_threshold_is_an_empty_list_of_the_right_shape(name):
    net = hierarchical(name)
    detector = detector_on(net, name, score_threshold=1.0).eval()
    _, maps, sizes, _ = batch(net, [(64, 96)], [0])
    with torch.no_grad():
        (found,) = detector(maps, sizes)
    expected = {"boxes": (0, 4), "scores": (0,), "labels": (0,)}
    if name == "mask_rcnn":
        expected["masks"] = (0, 1, 28, 28)
    assert {key: tuple(x.shape) for key, x in found.items()} == expected


@pytest.mark.parametrize("extra", [0, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_levels_trains_and_detects(name, extra):
    torch.manual_seed(0)
    net = Net([6, 6], [8, 16])
    detector = detector_on(net, name, extra_levels=extra)
    assert detector.strides == [8, 16, 32, 64, 128][: 2 + extra]
    _, maps, sizes, targets = batch(net, [(48, 80), (33, 65)], [2, 1], name == "mask_rcnn", detector.multiple)
    sum(detector(maps, sizes, targets).values()).backward()
    assert not [key for key, p in detector.named_parameters() if p.grad is None]
    with torch.no_grad():
        assert len(detector.eval()(maps, sizes)) == 2


def test_an_fpn_on_a_single_map_is_a_pyramid_of_one_level():
    net = Net([6], [16])
    detector = detector_on(net, "faster_rcnn", pyramid="fpn", extra_levels=0)
    assert detector.strides == [16]
    _, maps, sizes, targets = batch(net, [(48, 80)], [2], multiple=16)
    assert set(detector(maps, sizes, targets)) == LOSSES["faster_rcnn"]


@pytest.mark.parametrize("counts", [[2, 0], [0, 0]])
@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_maps_are_halved_and_boxes_are_not(name, counts):
    torch.manual_seed(0)
    net = hierarchical(name)
    detector = livelier(detector_on(net, name))
    images = torch.randn(2, 3, 64, 96)
    sizes, targets = (
        [(64, 96)] * 2,
        random_targets([(64, 96)] * 2, counts, name == "mask_rcnn"),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = net(images)
        assert maps[0].dtype == torch.bfloat16
        losses = detector(maps, sizes, targets)
        with torch.no_grad():
            found = detector.eval()(maps, sizes)
            if "rcnn" in name:
                levels = {str(i): x for i, x in enumerate(detector.extra(detector.pyramid(maps)))}
                proposals, _ = detector.model.rpn(ImageList(images, sizes), levels)
                assert {x.dtype for x in proposals} == {torch.float32}
    sum(losses.values()).backward()
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())
    assert all(row["boxes"].dtype == row["scores"].dtype == torch.float32 for row in found)
    assert all(level.dtype == torch.float32 for x in detector.modules() for level in getattr(x, "cell_anchors", ()))


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_and_its_loaded_weights_detect_the_same(name):
    net = hierarchical(name)
    detector = livelier(detector_on(net, name, detections_per_image=20)).eval()
    other = detector_on(net, name, detections_per_image=20).eval()
    other.load_state_dict(detector.state_dict())
    _, maps, sizes, _ = batch(net, [(64, 96)], [0])
    with torch.no_grad():
        expected = detector(maps, sizes)
        torch.testing.assert_close(copy.deepcopy(detector)(maps, sizes), expected)
        torch.testing.assert_close(other(maps, sizes), expected)


def test_anchors_sit_at_multiples_of_a_stride_that_is_no_whole_number():
    anchors = Anchors([3.5, 7.0], [2.0, 3.0], [0.5, 2.0])
    maps = [torch.zeros(2, 1, 5, 7, dtype=torch.bfloat16), torch.zeros(2, 1, 3, 4, dtype=torch.bfloat16)]
    first, second = anchors(ImageList(maps[0], [(16, 24), (17, 20)]), maps)
    expected = [
        [x * s - w / 2, y * s - h / 2, x * s + w / 2, y * s + h / 2]
        for s, grid in ((3.5, (5, 7)), (7.0, (3, 4)))
        for y, x in itertools.product(*map(range, grid))
        for ratio, scale in itertools.product((0.5, 2.0), (2.0, 3.0))
        for w, h in [(scale * s / ratio**0.5, scale * s * ratio**0.5)]
    ]
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, torch.tensor(expected))
    torch.testing.assert_close(second, first)


def test_anchors_of_whole_pixels_are_those_of_torchvision():
    strides, maps = [8, 16], [torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 3, 4)]
    images = ImageList(torch.zeros(1, 3, 48, 64), [(48, 64)])
    theirs = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    torch.testing.assert_close(Anchors(strides, [2.0], [1.0])(images, maps), theirs(images, maps))


@pytest.mark.parametrize("levels", [(2, 5), (2, 3), (3, 5)])
def test_regions_go_to_the_levels_that_torchvision_chooses(levels):
    first, last = levels
    torch.manual_seed(0)
    sides = torch.exp(torch.rand(20000, 2) * 7)
    exact = torch.tensor([[s, s] for s in (28.0, 56.0, 112.0, 224.0, 448.0, 896.0)])
    corners = torch.rand(20006, 2) * 100
    boxes = torch.cat([corners, corners + torch.cat([sides, exact])], dim=1)
    boxes[-6:] -= boxes[-6:, :2].repeat(1, 2)  # at 0: their sides are exact
    split = [boxes[:7], boxes[7:7], boxes[7:]]
    ours = LevelMapper([2**k for k in range(first, last + 1)])(split)
    assert torch.equal(ours, TheirMapper(first, last)(split))
    assert set(ours.tolist()) == set(range(last - first + 1))


def test_regions_are_pooled_where_they_lie_at_strides_that_are_no_powers_of_two():
    """Where a map holds its own columns, the mean over a region is the middle of it, in strides."""
    strides, boxes = [3.5, 7.0, 14.0], torch.tensor([[14.0, 7.0, 35.0, 21.0], [28.0, 0.0, 168.0, 140.0]])
    maps = {str(i): torch.arange(210 // s).expand(1, 1, 60, -1).contiguous() for i, s in enumerate(strides)}
    maps["3"] = torch.zeros(1, 1, 8, 8)  # a further level, which gives no regions
    pooled = region_pool(strides, 7)(maps, [boxes], [(200, 210)])
    assert tuple(pooled.shape) == (2, 1, 7, 7)
    torch.testing.assert_close(pooled.mean(dim=(1, 2, 3)), torch.tensor([24.5 / 3.5, 98 / 7]))


def test_regions_find_their_level_among_other_strides():
    """A border lies where both neighbours are equally near, as between 8 and 16 for a side of 224."""
    mapper = LevelMapper([3.5, 7, 14, 28])
    sides = torch.tensor([1.0, 97, 99, 195, 197, 391, 393, 5000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert mapper([boxes]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert LevelMapper([16])([boxes]).tolist() == [0] * 8


@pytest.mark.parametrize("name", NAMES)
def test_one_small_image_trains_although_its_last_levels_are_one_pixel(name):
    """torchvision's FCOS normalises groups of one channel here, and so of one value, which torch refuses."""
    net = hierarchical(name)
    detector = detector_on(net, name)
    _, maps, sizes, targets = batch(net, [(30, 32)], [1], name == "mask_rcnn")
    assert level_sizes(detector, maps)[-2:] == [(1, 1)] * 2
    assert all(torch.isfinite(value) for value in detector(maps, sizes, targets).values())


def test_options_reach_torchvisions_models():
    options = {"score_threshold": 0.3, "nms_threshold": 0.4, "detections_per_image": 7, "anchor_scale": 2.0}
    net = hierarchical("fcos")
    for name in NAMES:
        model = detector_on(net, name, **options).model
        kept, anchors = (
            (model.roi_heads, model.rpn.anchor_generator) if "rcnn" in name else (model, model.anchor_generator)
        )
        assert (kept.score_thresh, kept.nms_thresh, kept.detections_per_img) == (0.3, 0.4, 7)
        assert [level[0] for level in anchors.sizes] == [2.0 * s for s in detector_on(net, name).strides]
    assert detector_on(net, "fcos").model.score_thresh == 0.05
    assert detector_on(net, "fcos").model.nms_thresh == FCOS(Whole(net, detector_on(net, "fcos")), 2).nms_thresh


@pytest.mark.parametrize("depth", [1, 4, 6])
@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_towers_are_as_deep_as_asked(name, depth):
    torch.manual_seed(0)
    head = detector_on(hierarchical(name), name, num_convs=depth).model.head
    for part in (head.classification_head, head.regression_head):
        convs = [x for x in part.conv.modules() if isinstance(x, nn.Conv2d)]
        assert len(convs) == depth
        assert all(abs(x.weight.std() - 0.01) < 1e-3 and x.bias.abs().max() == 0 for x in convs)
    if (name, depth) == ("retinanet", 4):
        assert str(head) == str(RetinaNetHead(32, 9, CLASSES))


def test_no_backbone_and_no_transform_of_images_stay_in_the_model():
    for name in NAMES:
        model = detector_on(hierarchical(name), name).model
        assert not hasattr(model, "backbone")
        assert not hasattr(model, "transform")


def test_values_that_a_detector_cannot_take_are_refused():
    net = hierarchical("fcos")
    with pytest.raises(ValueError, match=r"channels=72 must be a multiple of 32 for fcos.*the nearest is 64"):
        detector_on(net, "fcos", channels=72)
    with pytest.raises(ValueError, match="num_convs=2 is the depth of the towers of fcos and retinanet"):
        detector_on(net, "mask_rcnn", num_convs=2)
    with pytest.raises(ValueError, match=r"not \[4, 4, 8\]; select one map a stride, backbone.out_strides=\[4, 8\]"):
        detector_on(Net([6] * 3, [4, 4, 8]), "fcos")


def test_targets_are_for_training_alone():
    net = hierarchical("fcos")
    detector = detector_on(net, "fcos")
    _, maps, sizes, targets = batch(net, [(64, 64)], [1])
    with pytest.raises(AssertionError, match="targets are for training mode"):
        detector(maps, sizes)
    with pytest.raises(AssertionError, match="targets are for training mode"):
        detector.eval()(maps, sizes, targets)


@pytest.mark.parametrize(("multiple", "shape"), [(1, (5, 8)), (4, (8, 8)), (14, (14, 14))])
def test_padding_adds_zeros_to_the_right_and_below(multiple, shape):
    images = [torch.randn(3, 5, 7), torch.randn(3, 2, 8)]
    x, sizes = pad(images, multiple)
    assert sizes == [(5, 7), (2, 8)]
    assert tuple(x.shape) == (2, 3, *shape)
    for padded, image, (height, width) in zip(x, images, sizes, strict=True):
        assert torch.equal(padded[:, :height, :width], image)
        assert not padded[:, height:].any()
        assert not padded[:, :, width:].any()
