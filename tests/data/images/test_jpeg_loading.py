"""Training reads JPEGs by a faster decoder, and nobody can tell by the pixels, the notes or the errors."""

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.data import make_data
from bbframe.data.images.image_options import AugmentOptions, ImageFolderOptions
from bbframe.data.images.image_transforms import takes_jpeg, train_transform
from bbframe.data.images.labelled_files import Files
from bbframe.imaging.jpeg_file import tensor_decoder
from bbframe.preprocessing import Preprocessing

AUGMENT = {
    "crop and flips": {"flip": True, "vertical_flip": True},
    "steps of PIL": {"degrees": 20.0, "color_jitter": (0.3, 0.3, 0.3, 0.1), "auto_augment": "randaugment"},
    "erasing and mixing": {"random_erasing": 0.5, "mixup": 0.2},
}


@pytest.fixture
def root(tmp_path):
    """Six images a class: JPEGs in colours, grey, turned, with broken EXIF, and a PNG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(6):
            image = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize((80, 60))
            image = image.convert("L") if index == 1 else image
            extra = {2: {"exif": exif}, 3: {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"}}.get(index, {})
            image.save(tmp_path / name / f"{index}.{'png' if index == 4 else 'jpg'}", **extra)
    return tmp_path


def data(root, num_channels=3, interpolation="bilinear", augment=(), **options):
    augment = AugmentOptions(crop_scale=(0.35, 1.0), **dict(augment))
    options = ImageFolderOptions(
        root=str(root), batch_size=2, num_workers=0, augment=augment, interpolation=interpolation, **options
    )
    return make_data(
        options,
        seed=3,
        preprocessing=Preprocessing(size=(32, 24)),
        num_channels=num_channels,
        stride=8,
        masks=False,
    )


def batches(made):
    loader = made.train_dataloader()
    return [(batch["image"], batch["label"]) for _ in range(2) for batch in loader]


@pytest.mark.parametrize("name", AUGMENT)
@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_training_sees_what_pillow_decodes(name, num_channels, interpolation, root, monkeypatch):
    augment = dict(AUGMENT[name])
    if num_channels == 1 and "color_jitter" in augment:
        augment["color_jitter"] = (0.3, 0.3, 0.0, 0.0)
    settings = {"num_channels": num_channels, "interpolation": interpolation, "augment": augment}
    calls = []
    quick = Files.plain_jpeg
    monkeypatch.setattr(Files, "plain_jpeg", lambda self, index: calls.append(quick(self, index)) or calls[-1])
    made = data(root, **settings)
    found = batches(made)
    assert any(call is not None for call in calls) == (interpolation != "lanczos")
    monkeypatch.setattr(Files, "plain_jpeg", lambda self, index: None)
    usual = data(root, **settings)
    for (image, label), (same_image, same_label) in zip(found, batches(usual), strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(label, same_label)
    assert made.assumed == usual.assumed
    assert made.assumed  # of broken EXIF


def test_an_evaluation_asks_for_no_other_decoder(root, monkeypatch):
    monkeypatch.setattr(Files, "plain_jpeg", lambda self, index: pytest.fail("asked for"))
    list(data(root).val_dataloader())


def test_without_a_random_crop_pillow_decodes():
    transform = train_transform(Preprocessing(), 3, AugmentOptions(flip=True))
    assert not takes_jpeg(transform)
    assert takes_jpeg(train_transform(Preprocessing(), 3, AugmentOptions(crop_scale=(0.5, 1.0))))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_cut_off_during_training_is_told_as_ever(num_workers, root):
    assert tensor_decoder() is not None
    made = data(root, on_error="skip", val_fraction=0.2, verify=False).separate(num_workers=num_workers)
    train = made.parts["train"]
    for index, left in ((0, 0.9999), (1, 0.5)):  # without its last bytes it is read; without half of them it is not
        path = train.root / train.paths[index]
        picture = Image.fromarray(np.random.default_rng(index).integers(0, 256, (60, 80, 3), np.uint8))
        picture.save(path, "JPEG")
        content = path.read_bytes()
        path.write_bytes(content[: int(left * len(content))])
    list(made.train_dataloader())
    made.teardown("")
    assert made.skipped == {train.name(1): "is cut off"}
    assert [*made.assumed["image files without their last bytes, read as far as they go"]] == [train.name(0)]
