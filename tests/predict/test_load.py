"""`bbframe.load`: a trained network, called on images in every form; `bbframe.features`."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import bbframe
from bbframe.app import train
from bbframe.data.images.digits import parted, scans
from bbframe.predict.image_results import BoxResult, ClassResult

TINY = ["backbone=convnextv2_atto", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,16,24,32]", "optim.lr=0.01"]


def trained(place, *overrides):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train.main([*TINY, *overrides]) == 0
    (metrics,) = place.rglob("metrics.json")
    return metrics.parent


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("classes"), "trainer.max_epochs=3", "backbone.out_indices=[2,4]")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    scenes = ["data.train_scenes=16", "data.val_scenes=2", "data.test_scenes=2", "data.min_size=48"]
    small = ["head=mask_rcnn", "head.channels=8", "head.score_threshold=0.0", "head.detections_per_image=5"]
    return trained(tmp_path_factory.mktemp("boxes"), "task=detection", *small, *scenes, "trainer.max_epochs=1")


def digit(index):
    return Image.fromarray(scans()[0][parted()["test"][index]])


@pytest.mark.long
def test_a_run_is_three_lines_away(classifier):
    net = bbframe.load(classifier)
    result = net(digit(0))
    assert isinstance(result, ClassResult)
    assert result.label == net.class_names[result.index] == net.class_names[int(result.probabilities.argmax())]
    assert result.probability == pytest.approx(float(result.probabilities.max()))
    assert float(result.probabilities.sum()) == pytest.approx(1)
    assert result.top(3)[0] == (result.label, result.probability)
    assert [r.label for r in net([digit(0), digit(1)])] == [net(digit(i)).label for i in (0, 1)]
    said = [int(result.label) for result in net([digit(i) for i in range(60)])]
    assert np.mean(np.equal(said, [scans()[1][i] for i in parted()["test"][:60]])) > 0.8
    assert net([]) == []


@pytest.mark.parametrize("source", ["folder", "checkpoint", "text"])
def test_a_run_is_named_by_its_folder_or_checkpoint(classifier, source):
    given = {"folder": classifier, "checkpoint": classifier / "checkpoints" / "best.ckpt", "text": str(classifier)}
    net = bbframe.load(given[source])
    assert net.calibration.temperature is not None  # the checkpoint's lies in its run folder
    assert net.familiarity is not None
    assert net.device.type == "cpu"


def test_probabilities_are_calibrated(classifier):
    net = bbframe.load(classifier)
    x = net.preprocessing([digit(3)])
    assert x.shape == (1, 3, 32, 32)
    with torch.inference_mode():
        scores = net.head(net.backbone(x).feature_maps)
    expected = (scores / net.calibration.temperature).softmax(1)[0]
    torch.testing.assert_close(net(digit(3)).probabilities, expected)


def test_what_is_no_digit_is_unfamiliar(classifier):
    net = bbframe.load(classifier)
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    assert np.mean([r.unfamiliar for r in net(noise)]) > 0.9
    assert "unlike the training images (distance" in str(net(noise[0]))
    assert np.mean([r.unfamiliar for r in net([digit(i) for i in range(100)])]) < 0.2


def test_every_form_of_an_image_gives_the_same_result(classifier, tmp_path):
    net = bbframe.load(classifier)
    digit(5).save(tmp_path / "x.png")
    pixels = np.array(digit(5))
    forms = [tmp_path / "x.png", str(tmp_path / "x.png"), pixels, torch.from_numpy(pixels), pixels / 255]
    for form in forms:
        assert torch.equal(net(form).probabilities, net(digit(5)).probabilities)
    assert len(net(torch.zeros(3, 1, 50, 20))) == 3


def test_the_preprocessing_is_what_training_saw(classifier):
    net = bbframe.load(classifier)
    data = bbframe_data(classifier)
    batch = next(iter(data.val_dataloader()))
    images = [data.parts["val"].read(i) for i in batch["index"].tolist()]
    assert torch.equal(net.preprocessing(images), batch["image"])
    assert net.preprocessing(images[0]).shape == (3, 32, 32)


def bbframe_data(folder):
    from bbframe.app.report_command import reopen

    return reopen(folder).data


def test_it_casts_copies_and_travels(classifier):
    net = bbframe.load(classifier)
    before = net(digit(0)).probabilities
    for changed in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(changed(digit(0)).probabilities, before)
    half = copy.deepcopy(net).bfloat16()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half(digit(0)).probabilities, before, atol=0.05, rtol=0)
    torch.testing.assert_close(copy.deepcopy(net).half()(digit(0)).probabilities, before, atol=0.01, rtol=0)
    assert not any(module.training for module in net.eval().modules())
    with pytest.raises(ValueError, match=r"a loaded network stays in evaluation mode; to train on, use"):
        net.train()


@pytest.mark.slow
def test_it_compiles(classifier):
    net = bbframe.load(classifier)
    before = net(digit(0)).probabilities
    net.compile()
    torch.testing.assert_close(net(digit(0)).probabilities, before, atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_boxes_are_in_the_pixels_of_each_image(detector):
    net = bbframe.load(detector)
    small = Image.effect_noise((96, 96), 90)
    large = small.resize((288, 288), Image.Resampling.NEAREST)
    found = net([small, large], threshold=0)
    assert all(isinstance(result, BoxResult) for result in found)
    assert len(found[0]) == 5
    assert [tuple(r.masks.shape) for r in found] == [(len(found[0]), 96, 96), (len(found[1]), 288, 288)]
    assert found[1].size == (288, 288)
    assert found[1].boxes.max() > 96
    assert found[0].labels == [net.class_names[i] for i in found[0].indices.tolist()]
    assert found[0].scores.tolist() == sorted(found[0].scores.tolist(), reverse=True)
    least = float(found[0].scores[1:3].mean())
    assert len(net(small, threshold=least)) == len(found[0].above(least)) == 2
    assert min(found[0].draw(small).size) >= 96
    with pytest.raises(ValueError, match="the result belongs to one of"):
        found[0].draw(large)
    assert str(found[0].above(1.0)) == "no objects"


def test_a_detector_casts_too(detector):
    net = bbframe.load(detector).bfloat16()
    assert len(net(Image.effect_noise((96, 96), 90), threshold=0)) == 5


@pytest.mark.parametrize(
    ("source", "text"),
    [("not/here/at-all", "there is no 'not'"), (3, "load: 3 must be a run folder"), (".", "not a run folder")],
)
def test_what_is_no_network_is_refused_in_one_line(source, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=text) as error:
        bbframe.load(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"threshold": 2}, {"threshold": "a"}, {"batch_size": 0}, {"batch_size": True}])
def test_impossible_arguments_are_refused(classifier, options):
    with pytest.raises(ValueError, match=r"(threshold|batch_size)=.* must be"):
        bbframe.load(classifier)(digit(0), **options)


@pytest.mark.parametrize("device", ["tpu", "meta", "", "cuda:99", 3.5])
def test_a_device_that_is_not_here_is_refused_in_one_line(classifier, device):
    with pytest.raises(ValueError, match=r"device=.*; use 'auto' or 'cpu'") as error:
        bbframe.load(classifier, device=device)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [0, -1, 2.5, None, True])
def test_an_impossible_number_of_classes_is_refused(classifier, count):
    with pytest.raises(ValueError, match="must be a whole number above 0"):
        bbframe.load(classifier)(digit(0)).top(count)


# features


def test_features_are_the_means_of_maps(classifier, tmp_path):
    net = bbframe.load(classifier)
    x = net.preprocessing([digit(0), digit(1)])
    with torch.inference_mode():
        maps = net.backbone(x).feature_maps
    for stage, expected in ((None, maps[-1]), ("stage2", maps[0]), (2, maps[0]), ("stage4", maps[-1])):
        found = bbframe.features(net, [digit(0), digit(1)], stage=stage)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.mean((2, 3)), atol=1e-5)
    assert bbframe.features(net, digit(0)).shape == (32,)


@pytest.mark.long
def test_features_of_a_backbone_leave_its_mode_alone():
    net = bbframe.AutoBackbone.from_config({"model_type": "resnet", "depths": [1, 1, 1, 1], "layer_type": "basic"})
    net.train()
    images = [Image.effect_noise((30, 50), 90), Image.effect_noise((300, 80), 90).convert("RGB")]
    found = bbframe.features(net, images, batch_size=1)
    assert found.shape == (2, net.channels[-1])
    assert net.training
    net.eval()
    np.testing.assert_allclose(found, net(net.preprocessing(images)).feature_maps[0].mean((2, 3)).detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stage": "stage9"}, "stage=stage9: the network gives"),
        ({"kind": "class_token"}, "this network's images have mean"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number above 0"),
    ],
)
def test_features_that_are_not_there_are_refused(classifier, options, text):
    with pytest.raises(ValueError, match=text):
        bbframe.features(bbframe.load(classifier), digit(0), **options)
    with pytest.raises(ValueError, match="a Linear has no backbone of bbframe"):
        bbframe.features(torch.nn.Linear(1, 1), digit(0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_turned_once(classifier, tmp_path, orientation):
    """As path, bytes and open image; the network sees what a viewer shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    seen = ImageOps.exif_transpose(Image.open(tmp_path / "x.png"))
    net = bbframe.load(classifier)
    expected = net(np.asarray(seen))
    with Image.open(tmp_path / "x.png") as opened:
        for form in (tmp_path / "x.png", (tmp_path / "x.png").read_bytes(), opened):
            assert torch.equal(net(form).probabilities, expected.probabilities)
            np.testing.assert_array_equal(bbframe.features(net, form), bbframe.features(net, np.asarray(seen)))


def test_the_backbone_of_a_run_prepares_images_as_the_run_did(classifier):
    net = bbframe.load(classifier)
    np.testing.assert_array_equal(bbframe.features(net.backbone, digit(0)), bbframe.features(net, digit(0)))
