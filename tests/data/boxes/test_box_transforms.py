"""What happens to an image happens to its boxes and masks."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.data.boxes.box_options import DetectionAugmentOptions, DetectionDataOptions
from bbframe.data.boxes.box_transforms import RandomCrop, eval_boxes, tight, train_boxes
from bbframe.data.images.image_transforms import eval_preprocessing
from bbframe.data.seeds import torch_seed
from bbframe.preprocessing import Preprocessing
from tests.data.helpers import build, load_coco, write_coco

PLAIN = Preprocessing(interpolation="bilinear")
EACH = {
    "nothing": {},
    "flip": {"flip": True},
    "vertical_flip": {"vertical_flip": True},
    "color_jitter": {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    "min_sizes": {"min_sizes": (30, 50, 90)},
    "scale_jitter": {"scale_jitter": (0.3, 2.0), "crop_size": (64, 48)},
    "crop_size": {"crop_size": (24, 32)},
    "iou_crop": {"iou_crop": True},
    "everything": {
        "iou_crop": True,
        "scale_jitter": (0.5, 2.0),
        "crop_size": (50, 60),
        "flip": True,
        "vertical_flip": True,
        "color_jitter": (0.4, 0.4, 0.4, 0.1),
    },
}


def sample(masks=True, count=5, size=(47, 61)):
    """A picture whose objects are ellipses in brightness 10, 20, ..., none covered by another."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    pixels = np.zeros((height, width, 3), np.uint8)
    found = []
    for i in range(count):
        y, x = 8 + 10 * (i % 4), 8 + 11 * i
        mask = ((rows - y) / 7) ** 2 + ((columns - x) / 5) ** 2 <= 1
        pixels[mask] = 50 + 40 * i
        found.append(mask)
    found = torch.from_numpy(np.array(found).reshape(count, height, width)).to(torch.uint8)
    return {
        "image": Image.fromarray(pixels),
        "boxes": brute(found),
        "labels": torch.arange(count),
        "crowd": torch.zeros(count, dtype=torch.bool),
        "area": found.sum((1, 2)).float(),
        "size": torch.tensor(size),
        **({"masks": found} if masks else {}),
    }


def brute(masks):
    """The boxes around masks, pixel by pixel."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = mask.nonzero().unbind(1)
        if len(rows):
            box[:] = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return boxes


def options(augment=None, **values):
    return DetectionDataOptions(
        name="drawn", augment=DetectionAugmentOptions(**augment) if augment is not None else None, **values
    )


def test_tight_boxes_are_those_found_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(40, 9, 13, generator=generator) < 0.02).to(torch.uint8)
    assert (masks.sum((1, 2)) == 0).any()
    assert torch.equal(tight(masks), brute(masks))
    assert tight(masks[:0]).shape == (0, 4)


@pytest.mark.parametrize("name", EACH)
def test_boxes_stay_around_their_masks(name):
    transform = train_boxes(options(EACH[name], min_size=60, max_size=90), PLAIN, 3)
    counts = set()
    for seed in range(30):
        with torch_seed(seed):
            seen = transform(sample())
        height, width = seen["image"].shape[1:]
        assert seen["masks"].shape[1:] == (height, width)
        assert len(seen["boxes"]) == len(seen["labels"]) == len(seen["masks"]) == len(seen["area"])
        limit = 1 + (seen["scale"] < 1).any()  # shrinking leaves whole lines of a mask out
        assert ((brute(seen["masks"]) - seen["boxes"]).abs() <= limit).all()
        assert (seen["boxes"][:, 2:] - seen["boxes"][:, :2] >= 1).all()
        assert (seen["boxes"] >= 0).all()
        assert (seen["boxes"][:, 2:] <= torch.tensor([width, height])).all()
        for i, box in enumerate(seen["boxes"].round().int().tolist()):
            assert seen["masks"][i, box[1] : box[3], box[0] : box[2]].any()
        counts.add(len(seen["boxes"]))
    if any("crop" in key for key in EACH[name]):
        assert min(counts) < 5
    else:
        assert counts == {5}


@pytest.mark.parametrize("name", ["nothing", "flip", "vertical_flip", "crop_size"])
def test_without_resizing_boxes_are_exact(name):
    transform = train_boxes(options(EACH[name]), PLAIN, 3)
    for seed in range(30):
        with torch_seed(seed):
            seen = transform(sample())
        assert torch.equal(brute(seen["masks"]), seen["boxes"])
        for label, mask in zip(seen["labels"].tolist(), seen["masks"].bool(), strict=True):
            assert torch.equal(mask, seen["image"][0] == 50 + 40 * label)
        assert seen["scale"].tolist() == [1, 1]


@pytest.mark.parametrize("name", [name for name in EACH if name != "nothing"])
def test_an_augmentation_changes_the_image_and_repeats_with_its_seed(name):
    transform = train_boxes(options(EACH[name]), PLAIN, 3)

    def draw(seed):
        with torch_seed(seed):
            return transform(sample())

    plain = eval_boxes(options(), PLAIN, 3)(sample())
    seen = [draw(seed) for seed in range(10)]
    assert any(not torch.equal(one["image"], plain["image"]) for one in seen)
    for seed, one in enumerate(seen):
        again = draw(seed)
        assert all(torch.equal(one[key], again[key]) for key in one)


@pytest.mark.parametrize("name", [name for name in EACH if "crop" not in name and name != "everything"])
def test_masks_change_nothing_else(name):
    """The boxes that a crop cuts are the exception: they become those of what is left of the mask."""
    transform = train_boxes(options(EACH[name]), PLAIN, 3)
    for seed in range(5):
        with torch_seed(seed):
            masked = transform(sample())
        with torch_seed(seed):
            bare = transform(sample(masks=False))
        if "crop_size" not in EACH[name]:
            assert all(torch.equal(bare[key], masked[key]) for key in bare)


def test_a_cut_box_is_that_of_the_rest_of_the_mask():
    transform = train_boxes(options({"crop_size": (20, 20)}), PLAIN, 3)
    tighter = 0
    for seed in range(30):
        with torch_seed(seed):
            masked = transform(sample())
        with torch_seed(seed):
            bare = transform(sample(masks=False))
        boxes = dict(zip(bare["labels"].tolist(), bare["boxes"], strict=True))
        for label, box in zip(masked["labels"].tolist(), masked["boxes"], strict=True):
            assert (box[:2] >= boxes[label][:2]).all()
            assert (box[2:] <= boxes[label][2:]).all()
            tighter += not torch.equal(box, boxes[label])
    assert tighter


@pytest.mark.parametrize("size", [(1, 1), (10, 10), (47, 61), (100, 20)])
def test_a_crop_is_a_part_of_the_image_and_every_part_comes_up(size):
    crop, image = RandomCrop(size), Image.fromarray(np.arange(47 * 61, dtype=np.int32).reshape(47, 61))
    corners = set()
    for seed in range(200):
        with torch_seed(seed):
            seen = np.asarray(crop({"image": image})["image"])
        assert seen.shape == (min(size[0], 47), min(size[1], 61))
        top, left = divmod(int(seen[0, 0]), 61)
        assert np.array_equal(seen, np.asarray(image)[top : top + size[0], left : left + size[1]])
        corners.add((top, left))
    rows, columns = ({corner[i] for corner in corners} for i in (0, 1))
    assert (min(rows), min(columns)) == (0, 0)
    assert max(rows) == max(0, 47 - size[0]) or size[0] < 47
    assert (len(rows) > 1) == (size[0] < 47)


@pytest.mark.parametrize(
    ("size", "min_size", "max_size", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),
        ((375, 500), 800, 1333, (800, 1066)),
        ((300, 900), 800, 1333, (444, 1333)),
        ((900, 300), 800, 1333, (1333, 444)),
        ((480, 640), None, 320, (240, 320)),
        ((480, 640), None, 2000, (480, 640)),
        ((480, 640), 240, None, (240, 320)),
        ((480, 640), None, None, (480, 640)),
        ((1, 900), 20, 100, (1, 100)),
    ],
)
def test_the_sides_after_resizing(size, min_size, max_size, expected):
    values = {"min_size": min_size, "max_size": max_size}
    seen = eval_boxes(options(**values), PLAIN, 3)(sample(size=size, count=0))
    assert tuple(seen["image"].shape[1:]) == expected
    assert seen["boxes"].shape == (0, 4)
    assert seen["masks"].shape == (0, *size)
    trained = train_boxes(options(**values), PLAIN, 3)(sample(size=size, count=0))
    assert tuple(trained["image"].shape[1:]) == expected
    assert trained["masks"].shape == (0, *expected)
    assert seen["scale"].tolist() == pytest.approx([expected[1] / size[1], expected[0] / size[0]])


def test_masks_are_evaluated_in_the_pixels_of_the_original():
    given = sample()
    seen = eval_boxes(options(min_size=20), PLAIN, 3)(sample())
    assert tuple(seen["image"].shape[1:]) == (20, 25)
    assert torch.equal(seen["masks"], given["masks"])
    assert tuple(seen["masks"].shape[1:]) == tuple(seen["size"].tolist())
    assert torch.allclose(seen["boxes"] / seen["scale"].repeat(2), brute(seen["masks"]), atol=1e-4)
    assert "masks" not in eval_boxes(options(min_size=20), PLAIN, 3)(sample(masks=False))


def test_evaluation_drops_nothing():
    """A box that resizing makes smaller than a pixel still counts."""
    seen = eval_boxes(options(max_size=5), PLAIN, 3)(sample())
    assert len(seen["boxes"]) == 5
    assert (seen["boxes"][:, 2:] > seen["boxes"][:, :2]).all()
    assert len(train_boxes(options(max_size=5), PLAIN, 3)(sample())["boxes"]) < 5


def test_multi_scale_draws_every_size_and_keeps_the_limit():
    transform = train_boxes(options({"min_sizes": (20, 40, 55)}, max_size=60), PLAIN, 3)
    sides = set()
    for seed in range(40):
        with torch_seed(seed):
            sides.add(tuple(transform(sample())["image"].shape[1:]))
    assert sides == {(20, 25), (40, 51), (46, 60)}


def test_scale_jitter_fits_the_crop():
    transform = train_boxes(options({"scale_jitter": (0.1, 2.0), "crop_size": (30, 100)}), PLAIN, 3)
    sides = []
    for seed in range(40):
        with torch_seed(seed):
            sides.append(tuple(transform(sample())["image"].shape[1:]))
    assert max(sides)[0] == 30
    assert max(side[1] for side in sides) <= int(2 * 30 / 47 * 61)
    assert min(sides)[0] < 12


@pytest.mark.parametrize("augment", [{}, EACH["everything"]])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_any_channels_and_no_objects(augment, mode, num_channels):
    augment = augment | ({"color_jitter": (0.4, 0.4, 0.0, 0.0)} if augment else {})
    given = sample(count=0)
    given["image"] = given["image"].convert(mode)
    seen = train_boxes(options(augment), PLAIN, num_channels)(given)
    assert len(seen["image"]) == num_channels
    assert seen["boxes"].shape == (0, 4)
    assert seen["masks"].shape == (0, *seen["image"].shape[1:])


def test_colour_changes_of_greyscale_images_are_refused():
    with pytest.raises(ValueError, match="saturation or hue, which greyscale images"):
        train_boxes(options({"color_jitter": (0.1, 0.1, 0.1, 0.0)}), PLAIN, 1)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("name", ["digits", "digit_scenes", "coco"])
def test_a_single_image_is_seen_as_an_evaluation_sees_it(name, num_channels, tmp_path):
    if name == "coco":
        write_coco(tmp_path)
        data = load_coco(tmp_path, min_size=50, max_size=60, num_channels=num_channels)
    else:
        data = build(name, num_channels=num_channels, **({"min_size": 120} if name == "digit_scenes" else {}))
    preprocessing = eval_preprocessing(data.options, data.preprocessing, num_channels)
    batch = next(iter(data.val_dataloader()))
    image = data.parts["val"].read(0)
    assert torch.equal(preprocessing(image), batch["image"][0])
    assert preprocessing.scale(image.size) == pytest.approx(
        batch["target"][0]["scale"].tolist() if "target" in batch else (1, 1)
    )


def test_batches_travel_to_a_spawned_worker(tmp_path):
    write_coco(tmp_path)
    batches = load_coco(tmp_path, augment=EACH["everything"], masks=True).train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(batches))
    first, second = (b.__getitems__([(3, 1)]) for b in (batches, copy))
    assert torch.equal(first["image"][0], second["image"][0])


@pytest.mark.long
def test_batches_repeat_with_any_number_of_workers_and_after_a_stop(tmp_path):
    write_coco(tmp_path, count=14)

    def load(num_workers):
        augment = EACH["everything"]
        return load_coco(tmp_path, augment=augment, masks=True, num_workers=num_workers, batch_size=3, mean=[0.5])

    def same(one, other):
        assert torch.equal(one["index"], other["index"])
        assert all(torch.equal(a, b) for a, b in zip(one["image"], other["image"], strict=True))
        for a, b in zip(one["target"], other["target"], strict=True):
            assert a.keys() == b.keys()
            assert a.keys() - {"seed"} == {"boxes", "labels", "crowd", "area", "scale", "size", "masks"}
            assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)

    first = load(0)
    loader = first.train_dataloader()
    whole = [batch for _ in range(3) for batch in loader]
    torch.manual_seed(5)
    second = load(2)
    loader = second.train_dataloader()
    again = [batch for _ in range(3) for batch in loader]
    for one, other in zip(whole, again, strict=True):
        same(one, other)
    for one, other in zip(first.val_dataloader(), second.val_dataloader(), strict=True):
        same(one, other)
    third = load(0)
    third.load_state_dict({"batches": 4, "epoch_batches": len(loader)})
    for one, other in zip(whole[4:], third.train_dataloader(), strict=False):
        same(one, other)
    second.teardown("")
    assert [t.dtype for t in whole[0]["target"][0].values()].count(torch.float32) == 3
    assert not torch.equal(whole[0]["image"][0], whole[len(loader)]["image"][0])
