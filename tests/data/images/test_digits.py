"""The default data set: its split, its sizes, its pixels."""

from collections import Counter

import pytest
import torch

from bbframe.preprocessing import Preprocessing
from tests.data.helpers import build

FIRST = [[0, 1, 2, 3, 4, 5], [7, 15, 36, 44, 46, 61], [18, 20, 25, 33, 37, 45]]


def test_every_scan_is_in_one_part_and_classes_are_balanced():
    data = build()
    names = [data.source(part, i) for part, count in data.counts.items() for i in range(count)]
    assert len(names) == len(set(names)) == 1797
    assert data.counts == {"train": 1259, "val": 269, "test": 269}
    for part in data.parts.values():
        shares = [count / len(part.labels) for count in Counter(part.labels).values()]
        assert len(shares) == 10
        assert max(shares) - min(shares) < 0.01


def test_the_split_is_written_in_stone():
    """A change of these would make old results incomparable."""
    data = build(seed=3)
    assert [part.indices[:6] for part in data.parts.values()] == FIRST
    assert build(seed=4).parts["test"].indices == data.parts["test"].indices


@pytest.mark.parametrize(("stride", "side"), [(1, 32), (4, 32), (14, 42), (16, 32), (32, 32), (64, 64)])
def test_the_default_size_is_a_multiple_of_the_stride(stride, side):
    data = build(stride=stride, preprocessing=Preprocessing(size=(224, 224)))
    assert data.image_size == (side, side)
    assert next(iter(data.val_dataloader()))["image"].shape == (64, 3, side, side)


@pytest.mark.parametrize(("image_size", "expected"), [(20, (20, 20)), ([16, 24], (16, 24))])
def test_the_size_can_be_chosen(image_size, expected):
    data = build(image_size=image_size)
    assert data.image_size == expected
    assert next(iter(data.train_dataloader()))["image"].shape[2:] == expected


@pytest.mark.parametrize("num_channels", [1, 3])
def test_batches_are_normalised(num_channels):
    given = Preprocessing(mean=(0.1, 0.2, 0.6), std=(0.5, 0.25, 0.25))
    data = build(preprocessing=given, num_channels=num_channels)
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].dtype == torch.float32
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    mean, std = ((0.3,), (1 / 3,)) if num_channels == 1 else (given.mean, given.std)
    assert data.mean == pytest.approx(mean)
    assert data.std == pytest.approx(std)
    pixels = torch.stack([data.picture("test", i) for i in batch["index"].tolist()]) / 255
    expected = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    assert torch.allclose(batch["image"], expected, atol=1e-5)
    assert pixels.min() == 0
    assert pixels.max() == 1
    assert (pixels == pixels[:, :1]).all()


def test_options_override_the_checkpoint():
    data = build(mean=[0.5], std=[0.1, 0.2, 0.3], interpolation="nearest", image_size=8, augment=None)
    assert (data.mean, data.std) == ((0.5,) * 3, (0.1, 0.2, 0.3))
    scan = torch.from_numpy(data.parts["val"].pixels[0])
    assert torch.equal(data.picture("val", 0)[0], scan)


@pytest.mark.parametrize("num_channels", [2, 4])
def test_other_channels_are_refused(num_channels):
    with pytest.raises(ValueError, match=f"num_channels={num_channels}; set backbone.num_channels to 1 or 3"):
        build(num_channels=num_channels)


def test_mixed_labels_are_probabilities():
    data = build(augment={"mixup": 0.4})
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert train["label"].shape == (64, 10)
    assert torch.allclose(train["label"].sum(1), torch.ones(64))
    assert val["label"].shape == (64,)
