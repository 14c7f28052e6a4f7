"""COCO's format: what is written comes back, and every fault of the files is told before training."""

import copy
import json
import pickle
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.data.boxes.segmentations import segmentation_rle
from bbframe.data.faults import FaultsError
from tests.data.helpers import build, load_coco, rewrite, run_lengths, write_coco


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    return folder, write_coco(folder)


@pytest.fixture
def spoil(pristine, tmp_path):
    """A function from a change of the JSON's content to the message with which the data set is refused."""
    folder, content = pristine

    def refused(change, **options):
        changed = copy.deepcopy(content)
        change(changed)
        rewrite(tmp_path, changed)
        (tmp_path / "train").symlink_to(folder / "train")
        with pytest.raises(ValueError, match=r"^data: ") as caught:
            load_coco(tmp_path, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"data: {tmp_path / 'train.json'}: ")
        return message

    return refused


def numbers(content, image):
    return [a for a in content["annotations"] if a["image_id"] == image]


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_written_comes_back(pristine, masks):
    folder, content = pristine
    data = load_coco(folder, val_fraction=0.4, test_fraction=0.0, masks=masks)
    assert data.class_names == ["disc", "box"]
    assert data.counts == {"train": 4, "val": 2}
    for part in data.parts:
        for i in range(data.counts[part]):
            target, picture = data.target(part, i), data.picture(part, i)
            path = data.source(part, i)
            found = numbers(content, int(path.split("/")[-1][:-4]))
            assert torch.equal(picture.permute(1, 2, 0), torch.from_numpy(np.array(Image.open(path))))
            assert target["labels"].tolist() == [{1: 0, 5: 1}[a["category_id"]] for a in found]
            assert target["boxes"].tolist() == [
                [x, y, x + w, y + h] for x, y, w, h in (annotation["bbox"] for annotation in found)
            ]
            assert target["crowd"].tolist() == [bool(a["iscrowd"]) for a in found]
            assert target["area"].tolist() == [a["area"] for a in found]
            assert (target["size"].tolist(), target["scale"].tolist()) == ([30, 40], [1, 1])
            assert ("masks" in target) == masks
            for mask, label, crowd in zip(
                target.get("masks", []), target["labels"].tolist(), target["crowd"].tolist(), strict=False
            ):
                assert mask.any()
                if not crowd:  # a disc is dark, a box bright, where the other does not cover it
                    assert torch.equal(mask.bool(), (picture[0] > 200) if label else (picture[0] < 50))


def test_compressed_run_lengths_are_the_same_masks(pristine, tmp_path):
    from faster_coco_eval.core.mask import encode

    folder, content = pristine
    plain = load_coco(folder, masks=True).parts["train"]
    changed = copy.deepcopy(content)
    for annotation in changed["annotations"]:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict):
            flat = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"]).astype(np.uint8)
            counts = encode(np.asfortranarray(flat.reshape(40, 30).T))["counts"]
            annotation["segmentation"] = {"size": [30, 40], "counts": counts.decode()}
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    packed = load_coco(tmp_path, masks=True).parts["train"]
    for i in range(len(plain.paths)):
        assert torch.equal(plain.target(i, True)["masks"], packed.target(i, True)["masks"])


def test_crowds_are_evaluated_but_do_not_train(pristine):
    folder, _ = pristine
    data = load_coco(folder, test_fraction=0.0, masks=True)
    place = {data.source(part, i): (part, i) for part in data.parts for i in range(data.counts[part])}
    part, index = place[str(folder / "train" / "2.png")]
    assert part == "train"
    assert data.target(part, index)["crowd"].tolist() == [False, False, True]
    seen = [target for batch in data.train_dataloader() for target in batch["target"]]
    assert not any(target["crowd"].any() for target in seen)
    assert {len(target["masks"]) for target in seen} <= {0, 2}


def test_images_without_annotations_train(pristine):
    folder, _ = pristine
    data = load_coco(folder, batch_size=1, split_seed=1, test_fraction=0.0, masks=True)
    empty = [b for b in data.train_dataloader() if not len(b["target"][0]["boxes"])]
    assert len(empty) == 1
    assert empty[0]["target"][0]["boxes"].shape == (0, 4)
    assert empty[0]["target"][0]["masks"].shape == (0, 30, 40)
    assert data.source("train", int(empty[0]["index"])).endswith("3.png")


def test_parts_in_files_are_taken_as_they_are(tmp_path):
    for seed, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        write_coco(tmp_path, part, count, seed=seed)
    data = load_coco(tmp_path, "train", "val", "test")
    assert (data.counts, data.test_part) == ({"train": 6, "val": 3, "test": 4}, "test")
    data = load_coco(tmp_path, "train", "val")
    assert (data.counts, data.test_part) == ({"train": 6, "val": 3}, "val")
    data = load_coco(tmp_path)
    assert data.counts == {"train": 4, "val": 1, "test": 1}
    names = [data.source(part, i) for part in data.parts for i in range(data.counts[part])]
    assert len(set(names)) == 6
    again = load_coco(tmp_path, seed=7)
    assert [again.source("val", 0), again.source("test", 0)] == [data.source("val", 0), data.source("test", 0)]


def test_sizes_follow_the_options(pristine):
    folder, _ = pristine
    data = load_coco(folder, min_size=60, max_size=70, num_workers=0)
    assert data.image_size == (60, 70)
    assert data.picture("train", 0).shape == (3, 52, 70)
    target = data.target("train", 0)
    assert target["scale"].tolist() == pytest.approx([70 / 40, 52 / 30])
    plain = load_coco(folder).target("train", 0)
    assert torch.allclose(target["boxes"] / target["scale"].repeat(2), plain["boxes"], atol=1e-4)
    assert torch.equal(target["area"], plain["area"])
    assert load_coco(folder, min_size=None, max_size=20).picture("train", 0).shape == (3, 15, 20)


def test_category_ids_with_gaps_rise_to_classes(tmp_path):
    write_coco(tmp_path, categories=((90, "disc"), (7, "box")))
    assert load_coco(tmp_path).class_names == ["box", "disc"]
    content = json.loads((tmp_path / "train.json").read_text())
    data = load_coco(tmp_path)
    first = int(data.source("train", 0).split("/")[-1][:-4])
    expected = [{90: 1, 7: 0}[a["category_id"]] for a in numbers(content, first)]
    assert data.target("train", 0)["labels"].tolist() == expected


def change(kind, number, **values):
    def apply(content):
        content[kind][number].update(values)

    return apply


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("annotations", {"bbox": [5.0, 5.0, 0.0, 4.0]}, "boxes without an area: annotation 2 (bbox=[5, 5, 0, 4])"),
        ("annotations", {"bbox": [5.0, 5.0, 3.0, -4.0]}, "boxes without an area: annotation 2"),
        ("annotations", {"bbox": [5.0, float("nan"), 3.0, 4.0]}, "boxes without an area: annotation 2"),
        ("annotations", {"bbox": [5.0, 5.0, float("inf"), 4.0]}, "boxes without an area: annotation 2"),
        ("annotations", {"bbox": [5, 5, 10**400, 4]}, "boxes without an area: annotation 2"),
        (
            "annotations",
            {"bbox": [42, 5, 6, 4]},
            "boxes outside their image: annotation 2 (x1, y1, x2, y2 = 42, 5, 48",
        ),
        ("annotations", {"bbox": [-9, 5, 6, 4]}, "boxes outside their image: annotation 2"),
        ("annotations", {"bbox": [-1.0, 5, 1.0, 4]}, "boxes without an area: annotation 2"),
        ("annotations", {"bbox": [1, 2, 3]}, "malformed annotation entries: annotation 2 (bbox=[1, 2, 3] must be 4"),
        ("annotations", {"bbox": None}, "malformed annotation entries: annotation 2 (bbox=None"),
        ("annotations", {"bbox": "1 2 3 4"}, "malformed annotation entries: annotation 2"),
        (
            "annotations",
            {"bbox": [1, 2, 3, "a"]},
            "malformed annotation entries: annotation 2 (bbox=[1, 2, 3, 'a']",
        ),
        ("annotations", {"bbox": [1, 2, 3, "nan"]}, "boxes without an area: annotation 2 (bbox=[1, 2, 3, nan])"),
        ("annotations", {"iscrowd": 2}, "malformed annotation entries: annotation 2 (iscrowd=2"),
        ("annotations", {"category_id": 4}, "unknown category ids: annotation 2 (category_id=4)"),
        ("annotations", {"category_id": [4]}, "unknown category ids: annotation 2 (category_id=[4])"),
        ("annotations", {"image_id": {}}, "malformed annotation entries: annotation 2 (image_id={}, category_id=5)"),
        ("annotations", {"image_id": None}, "malformed annotation entries: annotation 2 (image_id=None"),
        ("annotations", {"id": True}, "malformed annotation entries: number 1 (must be a mapping with an id)"),
        ("annotations", {"image_id": True}, "malformed annotation entries: annotation 2 (image_id=True, category_id="),
        (
            "annotations",
            {"category_id": True},
            "malformed annotation entries: annotation 2 (image_id=1, category_id=T",
        ),
        ("annotations", {"bbox": [True, 1, 5, 5]}, "malformed annotation entries: annotation 2 (bbox=[True, 1, 5, 5]"),
        ("images", {"id": True}, "malformed image entries: number 1 (must be a mapping with an id)"),
        ("categories", {"id": True}, "malformed category entries: number 1 (must be a mapping with an id)"),
        ("images", {"id": 1}, "duplicate image ids: image 1 (give each image its own id)"),
        ("images", {"file_name": "x/1.png"}, "duplicate file names: image 2 (1.png)"),
        (
            "images",
            {"file_name": "1.png", "width": 41},
            "images of another size than is said: image 2 (image 1 is",
        ),
        ("images", {"file_name": ""}, "malformed image entries: image 2 (file_name=''"),
        ("images", {"width": "wide"}, "malformed image entries: image 2 (file_name='2.png', width='wide', height=30)"),
        ("images", {"width": -1}, "malformed image entries: image 2"),
        ("images", {"height": 30.5}, "malformed image entries: image 2"),
        ("images", {"width": 41}, "images of another size than is said: image 2,"),
        ("images", {"file_name": "nowhere.png"}, "absent images: image 2,"),
        ("images", {"file_name": "../train/gone.png"}, "paths that leave the folder of the images: image 2"),
        ("images", {"file_name": "/etc/passwd"}, "paths that leave the folder of the images: image 2"),
        ("images", {"file_name": "C:\\gone.png"}, "paths that leave the folder of the images: image 2"),
        ("images", {"file_name": "a\0b.png"}, "absent images: image 2,"),
        ("categories", {"id": 1}, "duplicate category ids: category 1 (give each category its own id)"),
        ("categories", {"name": "disc"}, "duplicate category names: category 5 ('disc')"),
        ("categories", {"name": None}, "malformed category entries: category 5"),
        ("categories", {"id": "five"}, "malformed category entries: category five"),
    ],
)
def test_a_fault_is_named_with_its_id(kind, values, message, spoil):
    assert message in spoil(change(kind, 1, **values))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no segmentation"),
        ([], "no segmentation"),
        ("mask", "must be a list or a mapping"),
        ([[1.0, 2.0, 3.0, 4.0]], "3 or more points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]], "3 or more points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]], "3 or more points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, 1e8]], "a polygon leaves the image"),
        ({"size": [3, 4], "counts": [12]}, "size=[3, 4] must be [30, 40]"),
        ({"size": [40, 30], "counts": [1200]}, "size=[40, 30] must be [30, 40], the height and width of the image"),
        ({"counts": "zzz"}, "annotation 2 ("),
        ({"size": [30, 40], "counts": [3, 4]}, "whole numbers whose sum is 30x40"),
        ({"size": [30, 40], "counts": [-600, 1800]}, "whole numbers whose sum is 30x40"),
        ({"size": [30, 40], "counts": "zzz"}, "annotation 2 ("),
        ({"size": [30, 40], "counts": ""}, "must be a list or text"),
        ({"size": [30, 40]}, "must be a list or text"),
        ([{"size": [30, 40]}], "must be a list or text"),
        ([[0, 0, 40, 30] * 800], "outlines of 64000 pixels, more than 60000; write run lengths instead"),
        ([[1, 1, 5, 1, 5, 5]] * 5001, "outlines of 60012 pixels, more than 60000; write run lengths instead"),
        ([[1, 1] * 1_000_001], "outlines of 1000001 points, more than 1000000; write run lengths instead"),
    ],
)
def test_a_bad_mask_is_named_where_masks_are_wanted(segmentation, message, spoil, pristine, tmp_path):
    told = spoil(change("annotations", 1, segmentation=segmentation), masks=True)
    assert "missing or malformed masks: annotation 2 (" in told
    assert message in told
    assert load_coco(tmp_path).counts["train"] == 4  # without masks it does not matter


def test_all_faults_are_told_at_once(spoil):
    def ruin(content):
        change("annotations", 0, bbox=[1, 2])(content)
        change("annotations", 1, category_id=4)(content)
        change("annotations", 2, image_id=[])(content)
        for i in (5, 6, 7, 8):
            change("annotations", i, bbox=[1, 1, 0, 0])(content)
        content["annotations"] += [
            {"id": 100 + i, "image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 0]} for i in range(4)
        ]
        change("images", 5, file_name="gone.png")(content)

    message = spoil(ruin)
    for kind in (
        "malformed annotation",
        "unknown category ids",
        "absent images: image 6",
    ):
        assert kind in message
    assert "annotation 9 (bbox=[1, 1, 0, 0]), annotation 100 (bbox=[0, 0, 0, 0]) and 3 more" in message
    end = "; repair or remove them, or set data.on_error=skip; all 12 are in error.txt of the run folder"
    assert message.endswith(end)


def test_what_the_line_leaves_out_is_in_the_details(pristine, tmp_path):
    folder, content = pristine
    changed = copy.deepcopy(content)
    for annotation in changed["annotations"][:8]:
        annotation["bbox"] = [1, 1, 0, 0]
    changed["annotations"][8]["category_id"] = 4
    changed["images"][5]["file_name"] = "gone.png"
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    with pytest.raises(FaultsError, match=r"all 10 are in error.txt") as caught:
        load_coco(tmp_path)
    lines = caught.value.details.splitlines()
    assert len(lines) == 10
    file = tmp_path / "train.json"
    for number in range(1, 9):
        assert f"{file}: boxes without an area: annotation {number} (bbox=[1, 1, 0, 0])" in lines
    assert f"{file}: unknown category ids: annotation 9 (category_id=4)" in lines
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.details) == (str(caught.value), caught.value.details)
    for annotation in changed["annotations"][3:9]:
        annotation.update(bbox=[1, 1, 5, 5], category_id=1)
    rewrite(tmp_path, changed)
    with pytest.raises(FaultsError, match=r"on_error=skip$") as caught:  # nothing was left out
        load_coco(tmp_path)
    assert len(caught.value.details.splitlines()) == 4


def test_faults_of_categories_cause_no_others(spoil):
    message = spoil(lambda content: [entry.update(id=f"aa-{entry['id']}") for entry in content["categories"]])
    why = "must have an integer id and a name"
    ending = f"malformed category entries: category aa-1 ({why}), category aa-5 ({why})"
    assert message.endswith(f"train.json: {ending}")


def test_faults_of_categories_cause_none_in_another_file(tmp_path):
    content = write_coco(tmp_path)
    write_coco(tmp_path, "val")
    rewrite(tmp_path, {**content, "categories": [content["categories"][0], {"id": 5}]})
    with pytest.raises(ValueError, match=r"train.json: malformed category entries: category 5 \([^)]*\)$"):
        load_coco(tmp_path, "train", "val")


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}])
def test_no_skipping_is_proposed_where_it_does_not_help(options, spoil):
    message = spoil(change("categories", 1, id=1), **options)
    assert message.endswith("train.json: duplicate category ids: category 1 (give each category its own id)")


def test_annotations_of_other_images_alone_are_refused(spoil):
    message = spoil(
        lambda content: [entry.update(image_id=f"{entry['image_id']}.png") for entry in content["annotations"]]
    )
    told = "no annotation has the id of an image (the first has image_id='1.png', the first image id=1); write the ima"
    assert told in message


def test_normalised_boxes_are_refused(spoil):
    def normalise(content):
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            entry.update(bbox=[x / 40, y / 30, width / 40, height / 30])

    message = spoil(normalise)
    told = "its boxes are all within 0..1, which looks normalised; multiply them by width and height"
    assert message.endswith(f"train.json: {told}")


def test_polygons_that_cover_each_pixel_many_times_take_little_memory_and_time(pristine):
    side = 13_000
    zigzag = [value for i in range(1500) for value in ((i % 2) * side, i * side / 1500)]
    said = []
    started = time.process_time()
    with pytest.raises(ValueError, match=r"outlines of 19\d{6} pixels, more than 5000000; write run lengths instead"):
        segmentation_rle([zigzag], side, side, said)
    assert time.process_time() - started < 2
    assert segmentation_rle([zigzag[:400]], side, side, said)


def test_many_categories_are_compared_in_little_time(pristine, tmp_path):
    folder, content = pristine
    changed = copy.deepcopy(content)
    changed["categories"] = [{"id": i, "name": f"c{i}", "supercategory": "x"} for i in range(1, 20_001)]
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    started = time.process_time()
    assert load_coco(tmp_path).category_ids == list(range(1, 20_001))
    assert time.process_time() - started < 5


def test_both_files_are_told_about(tmp_path):
    for part in ("train", "val"):
        content = write_coco(tmp_path, part)
        content["annotations"][0]["category_id"] = 3
        rewrite(tmp_path, content, part)
    with pytest.raises(ValueError, match=r"train.json: unknown category ids.*; .*val.json: unknown category ids"):
        load_coco(tmp_path, "train", "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty at line 1, column 1"),
        ('{"images": [{"id": 1, ', "breaks off at line 1, column 2"),
        ('{"images": [1 2]}', "is no JSON at line 1, column 15: expecting ',' delimiter"),
        ("[" * 100_000, "is no JSON: "),
        ("[]", "is a list or a value, not a mapping with images, annotations, categories"),
        ('{"images": []}', "has no list of annotations, no list of categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list of annotations"),
        ('{"images": [], "annotations": [], "categories": [1]}', "has no images, no annotations"),
        ('{"images": [1], "annotations": [[]], "categories": ["a"]}', "malformed image entries: number 0"),
    ],
)
def test_a_file_of_something_else_is_refused(text, message, pristine, tmp_path):
    (tmp_path / "train").symlink_to(pristine[0] / "train")
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ValueError, match=r"train.json: ") as caught:
        load_coco(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(pristine, tmp_path):
    (tmp_path / "train").symlink_to(pristine[0] / "train")
    (tmp_path / "train.json").write_bytes(b'{"images": "\xff\xfa"}')
    with pytest.raises(ValueError, match=r"train.json: is no text \(UTF-8\)$"):
        load_coco(tmp_path)


def test_missing_files_and_folders_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="data: ") as caught:
        load_coco(tmp_path, "train", "val")
    for part in ("train", "val"):
        assert f"{part}.json: its images should be in {tmp_path / part}, which is no folder" in str(caught.value)
    assert str(caught.value).count("cannot be read: no such file or directory") == 2


def test_broken_images_are_named(pristine, tmp_path):
    content = write_coco(tmp_path)
    for number, raw in ((1, b""), (4, b"this is a letter")):
        (tmp_path / "train" / f"{number}.png").write_bytes(raw)
    with pytest.raises(ValueError, match=r"unreadable images: image 1, .*1.png \(not an image\), image 4, .*4.png"):
        load_coco(tmp_path)
    data = load_coco(tmp_path, on_error="skip", test_fraction=0.0)
    assert sum(data.counts.values()) == 4
    assert len(data.skipped) == 2
    assert sum(len(part.boxes) for part in data.parts.values()) == len(content["annotations"]) - 4


def test_a_cut_off_image_is_named_before_training_or_else_in_it(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "train" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"unreadable images: image 1, .*1.png \(is cut off\)"):
        load_coco(tmp_path)
    data = load_coco(tmp_path, val_fraction=0.5, verify=False)
    with pytest.raises(ValueError, match=r"data: cannot read .*1.png"):
        [list(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]


def test_an_image_of_another_size_is_met_in_training_if_not_before(tmp_path):
    write_coco(tmp_path, size=(40, 30))
    for number in range(1, 7):
        Image.new("RGB", (41, 30)).save(tmp_path / "train" / f"{number}.png")
    with pytest.raises(ValueError, match=r"another size than is said: image 1, .* \(41x30, not 40x30\)"):
        load_coco(tmp_path)
    data = load_coco(tmp_path, verify=False)
    with pytest.raises(ValueError, match=r"cannot read .*: is 41x30, but its annotations say 40x30"):
        list(data.train_dataloader())


def test_sizes_are_those_of_the_upright_image(tmp_path):
    write_coco(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "train" / "1.png"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    data = load_coco(tmp_path)
    assert data.counts["train"] == 4
    Image.open(path).save(path)  # the orientation is gone
    with pytest.raises(ValueError, match=r"30x40, not 40x30"):
        load_coco(tmp_path)


def test_skip_leaves_out_and_counts(pristine, tmp_path):
    folder, content = pristine
    changed = copy.deepcopy(content)
    changed["annotations"][0]["bbox"] = [1, 1, 0, 0]
    changed["annotations"][1]["category_id"] = 9
    changed["images"][5]["file_name"] = "gone.png"
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    data = load_coco(tmp_path, on_error="skip", test_fraction=0.0)
    source = tmp_path / "train.json"
    assert sum(data.counts.values()) == 5
    assert list(data.skipped) == [
        f"{source}: image 6, {tmp_path / 'train' / 'gone.png'}",
        f"{source}: annotation 1",
        f"{source}: annotation 2",
    ]
    assert data.skipped[f"{source}: annotation 1"] == "boxes without an area, bbox=[1, 1, 0, 0]"
    assert sum(len(part.boxes) for part in data.parts.values()) == len(content["annotations"]) - 2 - 2
    with pytest.raises(
        ValueError, match=r"3 faulty images and annotations, of which data.max_errors=2 may be skipped"
    ):
        load_coco(tmp_path, on_error="skip", max_errors=2)


def test_nothing_left_is_an_error(pristine, tmp_path):
    folder, content = pristine
    changed = copy.deepcopy(content)
    for annotation in changed["annotations"]:
        annotation["category_id"] = 9
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    with pytest.raises(ValueError, match=r"train.json: no annotations that can serve"):
        load_coco(tmp_path, on_error="skip")


def test_rounding_is_clipped(pristine, tmp_path):
    folder, content = pristine
    changed = copy.deepcopy(content)
    changed["annotations"][1].update(
        bbox=[-0.4, 20.2, 41, 10.5], segmentation=[[-0.5, 20, 40.5, 20, 40.5, 30.9, 0, 30]]
    )
    rewrite(tmp_path, changed)
    (tmp_path / "train").symlink_to(folder / "train")
    boxes = torch.cat([torch.from_numpy(part.boxes) for part in load_coco(tmp_path, masks=True).parts.values()])
    assert [pytest.approx([0, 20.2, 40, 30])] == [box for box in boxes.tolist() if box[0] == 0 and box[1] > 20]


def test_categories_must_agree(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "val", categories=((1, "disc"), (2, "cube")))
    with pytest.raises(ValueError, match=r"val.json: categories that train lacks: cube$"):
        load_coco(tmp_path, "train", "val")
    data = load_coco(tmp_path, "train", "val", on_error="skip", masks=True)
    assert data.target("val", 0)["labels"].tolist() == [0]
    assert list(data.skipped.values()) == ["categories that train lacks, 5 objects"]


@pytest.mark.parametrize("masks", [False, True])
def test_categories_are_matched_by_name(masks, tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "val", categories=((3, "disc"), (1, "box")))
    data = load_coco(tmp_path, "train", "val", masks=masks)
    assert data.class_names == ["disc", "box"]
    assert (data.category_ids, data.part_category_ids("val")) == ([1, 5], [3, 1])
    for i in range(data.counts["val"]):
        target, picture = data.target("val", i), data.picture("val", i)
        for box, label, crowd in zip(target["boxes"].int().tolist(), target["labels"], target["crowd"], strict=True):
            middle = picture[0, (box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
            assert crowd or (middle > 200 if label else middle < 50)
    content = write_coco(tmp_path, "val", categories=((1, "disc"), (5, "box")))
    content["categories"] = content["categories"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]
    rewrite(tmp_path, content, "val")
    data = load_coco(tmp_path, "train", "val", masks=masks)
    assert told(data) == {"lacking categories of train": ["box"]}
    assert set(data.parts["val"].classes) == {0}


def told(data):
    return {what: [name.split(": ")[-1] for name in names] for what, names in data.assumed.items()}


def test_an_image_is_in_one_part_only(tmp_path):
    content = write_coco(tmp_path)
    rewrite(tmp_path, content, "val")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match=r"val.json: val images that are train images too: .*1.png.* and 1 more"):
        load_coco(tmp_path, "train", "val")


def test_too_few_images_cannot_be_split(tmp_path):
    write_coco(tmp_path, count=2)
    way = "add some, or set data.val_annotations=... or data.test_annotations=... or data.test_fraction=0"
    with pytest.raises(ValueError, match=re.escape(f"2 images are too few to split into train, val, test; {way}")):
        load_coco(tmp_path)
    assert load_coco(tmp_path, test_fraction=0.0).counts == {"train": 1, "val": 1}
    write_coco(tmp_path, count=1)
    way = "add some, or set data.val_annotations=..."
    with pytest.raises(ValueError, match=re.escape(f"data: 1 image is too few to split into train, val; {way}") + "$"):
        load_coco(tmp_path, test_fraction=0.0)


def shows(data, part):
    return [bool((~data.target(part, i)["crowd"]).any()) for i in range(data.counts[part])]


def bare(content, images):
    """Take the objects away from some images."""
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in images]


@pytest.mark.parametrize("empty", [1, 2, 5, 16])
def test_every_part_has_its_share_of_images_with_objects(empty, tmp_path):
    content = write_coco(tmp_path, count=20)
    bare(content, range(3, 3 + empty))
    rewrite(tmp_path, content)
    for seed in range(20):
        data = load_coco(tmp_path, split_seed=seed)
        found = {part: shows(data, part) for part in data.parts}
        assert all(any(found[part]) for part in found)
        few = empty <= 2  # all of them train
        assert [found[part].count(False) for part in ("val", "test")] == (
            [0, 0] if few else [max(1, empty * 3 // 20)] * 2
        )
        assert sum(map(len, found.values())) == 20


def test_a_part_without_any_object_that_counts_is_refused(tmp_path):
    content = write_coco(tmp_path)
    first = copy.deepcopy(content)
    bare(content, range(2, 7))
    rewrite(tmp_path, content)
    fix = "change data.val_fraction or data.split_seed, or set data.val_annotations=..."
    told = 0
    for seed in range(6):
        try:
            load_coco(tmp_path, split_seed=seed, test_fraction=0.0, val_fraction=0.4)
        except ValueError as error:
            assert str(error) in (  # noqa: PT017
                f"data: 2 val images without any object that counts; {fix}",
                "data: 4 train images without any object that counts; name others by data.train_annotations",
            )
            told += 1
    assert told
    rewrite(tmp_path, first)
    second = write_coco(tmp_path, "val", count=1, seed=3)
    for annotation in second["annotations"]:
        annotation["iscrowd"] = 1
    rewrite(tmp_path, second, "val")
    with pytest.raises(
        ValueError, match=r"data: 1 val image without any object that counts; name others by data.val_"
    ):
        load_coco(tmp_path, "train", "val")


def test_without_masks_nothing_is_decoded(pristine):
    folder, _ = pristine
    assert load_coco(folder).parts["train"].masks is None


def test_classification_has_no_masks():
    with pytest.raises(ValueError, match="data: digits has no masks; choose a data set for detection"):
        build(masks=True)


def test_run_lengths_begin_with_zeros():
    assert run_lengths(np.array([[1, 0], [1, 1]], bool)) == {"size": [2, 2], "counts": [0, 2, 1, 1]}
