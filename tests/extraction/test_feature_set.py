"""Features are computed once, for images and for boxes, and stand in the rows that are asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.data import make_data
from bbframe.data.boxes.box_options import DigitScenesOptions
from bbframe.data.images.image_options import DigitsOptions, ImageFolderOptions
from bbframe.extraction import feature_set
from bbframe.extraction.feature_set import ImageChoice, common_images, extract
from bbframe.extraction.feature_store import FeatureStore
from bbframe.extraction.stage_pooling import StagePooling
from bbframe.preprocessing import Preprocessing
from tests.tiny import tiny


def data_of(options, net, **more):
    return make_data(
        options, seed=0, preprocessing=Preprocessing(size=(32, 32)), num_channels=3, stride=max(net.strides), **more
    )


def looked(net, data, indices, folder, boxes=False, part="train"):
    pooling = StagePooling(net, boxes)
    choice = ImageChoice.of(data, part, indices)
    return extract(pooling, data, choice, FeatureStore(folder, pooling.keys))


def test_a_second_look_computes_nothing_and_a_larger_one_only_what_is_new(tmp_path):
    net = tiny("resnet").eval()
    data = data_of(DigitsOptions(batch_size=4), net)
    first = looked(net, data, range(10), tmp_path)
    calls = []
    net.register_forward_hook(lambda module, given, output: calls.append(len(given[0])))
    again, more = looked(net, data, range(10), tmp_path), looked(net, data, range(5, 13), tmp_path)
    assert (first.computed, again.computed, more.computed) == (10, 0, 3)
    assert sum(calls) == 3
    for stage, kind in first.keys:
        np.testing.assert_array_equal(first.array(stage, kind), again.array(stage, kind))
        np.testing.assert_array_equal(first.array(stage, kind)[5:], more.array(stage, kind)[:5])
    assert more.labels.tolist() == [int(data.parts["train"].labels[i]) for i in range(5, 13)]


def test_features_are_those_of_the_evaluations_batches_whatever_their_size(tmp_path):
    net = tiny("convnext").eval()
    one, many = (data_of(DigitsOptions(batch_size=size), net) for size in (1, 7))
    alone, together = looked(net, one, range(7), tmp_path / "a"), looked(net, many, range(7), tmp_path / "b")
    batch = next(iter(many.loader_of("train", list(range(7)))))
    with torch.inference_mode():
        last = net(batch["image"]).feature_maps[-1].mean((2, 3)).numpy()
    stage = net.out_features[-1]
    np.testing.assert_allclose(together.array(stage), last, atol=1e-5)
    np.testing.assert_allclose(alone.array(stage), last, atol=1e-4)


def test_what_was_written_before_a_kill_is_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_set, "FLUSH_SECONDS", 0.0)
    net = tiny("resnet").eval()
    data = data_of(DigitsOptions(batch_size=4), net)
    counts = []

    def killed(count):
        counts.append(count)
        if sum(counts) >= 8:
            raise KeyboardInterrupt

    pooling = StagePooling(net)
    choice = ImageChoice.of(data, "train", range(20))
    with pytest.raises(KeyboardInterrupt):
        extract(pooling, data, choice, FeatureStore(tmp_path, pooling.keys), killed)
    assert looked(net, data, range(20), tmp_path).computed == 12


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path):
    net = tiny("resnet").eval()
    for name, colour in (("a", 10), ("b", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (colour, number * 40, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    options = ImageFolderOptions(root=str(tmp_path / "photos"), batch_size=4, num_workers=0, test_fraction=0)
    data = data_of(options, net)
    count = data.counts["train"]
    assert looked(net, data, range(count), tmp_path / "f").computed == count
    (tmp_path / "photos" / "a" / "0.png").rename(tmp_path / "photos" / "a" / "zero.png")
    renamed = data_of(options, net)
    assert looked(net, renamed, range(renamed.counts["train"]), tmp_path / "f").computed <= 1  # the split may change
    path = tmp_path / "photos" / "b" / "1.png"
    Image.new("RGB", (40, 40), (0, 0, 99)).save(path)
    changed = data_of(options, net)
    assert looked(net, changed, range(changed.counts["train"]), tmp_path / "f").computed <= 2


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path):
    net = tiny("resnet").eval()
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    options = ImageFolderOptions(
        root=str(tmp_path / "photos"), batch_size=4, num_workers=0, test_fraction=0, on_error="skip", verify=False
    )
    data = data_of(options, net)
    first = data.source("train", 0)
    with open(first, "r+b") as file:
        file.truncate(40)
    found = looked(net, data, range(data.counts["train"]), tmp_path / "f")
    assert 0 not in found.images.tolist()
    assert len(found.images) == data.counts["train"] - 1 == len(found.array(found.stages[0]))
    assert [*data.skipped] == [first]


def test_a_file_that_is_gone_is_lost_and_without_any_image_there_is_one_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    net = tiny("resnet")
    data = data_of(ImageFolderOptions(root=str(tmp_path / "photos"), test_fraction=0), net)
    for path in (tmp_path / "photos").glob("*/*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"^data: none of 2 train images can be read; .*png: .*") as caught:
        ImageChoice.of(data, "train", [0, 1])
    assert "\n" not in str(caught.value)


def test_in_detection_a_row_is_a_true_box(tmp_path):
    net = tiny("resnet").eval()
    data = data_of(DigitScenesOptions(train_scenes=6, val_scenes=2, test_scenes=2, batch_size=4), net)
    images = data.parts["train"]
    found = looked(net, data, range(6), tmp_path, boxes=True)
    assert len(found.labels) == len(images.classes[~images.crowd]) == len(found.array(net.out_features[0]))
    np.testing.assert_array_equal(found.boxes, images.boxes[~images.crowd])
    np.testing.assert_array_equal(found.labels, images.classes[~images.crowd])
    assert looked(net, data, range(6), tmp_path, boxes=True).computed == 0
    some = found.of_images(found.digests[2:4])
    kept = np.isin(found.images, [2, 3])
    np.testing.assert_array_equal(some.images, found.images[kept])
    np.testing.assert_array_equal(some.array(net.out_features[0]), found.array(net.out_features[0])[kept])


def test_the_images_that_all_sets_have_keep_the_order_of_the_first(tmp_path):
    net = tiny("resnet").eval()
    data = data_of(DigitsOptions(), net)
    one, two = (looked(net, data, part, tmp_path) for part in ([3, 1, 2, 0], [0, 2, 3]))
    shared = common_images([one, two])
    assert [one.of_images(shared).images.tolist(), two.of_images(shared).images.tolist()] == [[3, 2, 0]] * 2
