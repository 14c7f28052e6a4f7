"""Annotations as other tools write them: read with the right values, and what was assumed is counted."""

import copy
import os
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from bbframe.data.boxes.image_paths import FOLDER
from bbframe.data.boxes.segmentations import segmentation_rle
from tests.data.boxes.test_coco import told
from tests.data.boxes.test_voc import OBJECT, annotation, thing
from tests.data.helpers import build, load_coco, rewrite, write, write_coco


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    return folder, write_coco(folder)


@pytest.fixture
def loaded(written, tmp_path):
    """A function from a change of the JSON's content to the data module."""
    folder, content = written
    (tmp_path / "train").symlink_to(folder / "train")

    def load(change, **options):
        changed = copy.deepcopy(content)
        change(changed)
        rewrite(tmp_path, changed)
        return load_coco(tmp_path, **options)

    return load


def objects(data):
    """All boxes with their classes, by the names of their images."""
    return {
        data.source(part, i).rsplit("/", 1)[-1]: list(zip(t["labels"].tolist(), t["boxes"].tolist(), strict=True))
        for part in data.parts
        for i in range(data.counts[part])
        for t in [data.target(part, i)]
    }


def every(kind, **values):
    """A change of all entries of a kind; a value may be a function of the old one, or ... to leave a key out."""

    def apply(content):
        for entry in content[kind]:
            for key, value in values.items():
                if value is ...:
                    del entry[key]
                else:
                    entry[key] = value(entry[key]) if callable(value) else value

    return apply


def both(*changes):
    return lambda content: [change(content) for change in changes]


SAME = {
    "sizes as 40.0": every("images", width=float, height=float),
    "sizes as text": every("images", width=str, height=str),
    "image ids as 1.0": every("images", id=float),
    "image ids as text in the images": every("images", id=str),
    "image ids as text in the annotations": every("annotations", image_id=str),
    "image ids as 1.0 in the annotations": every("annotations", image_id=float),
    "category ids as 1.0": every("categories", id=float),
    "category ids as text": every("categories", id=str),
    "category ids as text in the annotations": every("annotations", category_id=str),
    "annotations without id": every("annotations", id=...),
    "annotations with id null": every("annotations", id=None),
    "ids of annotations as text": every("annotations", id=str),
    "iscrowd left out": every("annotations", iscrowd=...),
    "iscrowd null": every("annotations", iscrowd=None),
    "iscrowd as true and false": every("annotations", iscrowd=bool),
    "iscrowd as 0.0": every("annotations", iscrowd=float),
    "area null": every("annotations", area=None),
    "area left out": every("annotations", area=...),
    "backslashes": every("images", file_name=lambda name: f".\\{name}"),
    "a folder before the name": every("images", file_name=lambda name: f"images/{name}"),
    "backslashes after folders": every("images", file_name=lambda name: f"data\\train\\{name}"),
    "paths of another machine": every("images", file_name=lambda name: f"/photos/mine/photos/{name}"),
    "paths with a drive": every("images", file_name=lambda name: f"D:\\photos\\{name}"),
    "paths beside the annotations": every("images", file_name=lambda name: f"../images/train/{name}"),
    "another suffix": every("images", file_name=lambda name: name.replace(".png", ".jpg")),
    "capital letters": every("images", file_name=lambda name: name.replace(".png", ".PNG")),
    "spaces around names": every("categories", name=lambda name: f" {name}\n"),
    "a root category": lambda c: both(
        every("categories", supercategory="things"),
        lambda c: c["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"}),
    )(c),
    "a root category called like a class": lambda c: both(
        every("categories", supercategory="disc"),
        lambda c: c["categories"].insert(0, {"id": 0, "name": "disc", "supercategory": "none"}),
    )(c),
    "a null supercategory": every("categories", supercategory=None),
    "no sizes": every("images", width=..., height=...),
    "sizes null": every("images", width=None, height=None),
    "sizes 0": every("images", width=0, height=0),
    "boxes as text": every("annotations", bbox=lambda box: [str(v) for v in box]),
    "area as text": every("annotations", area=str),
    "area NaN": every("annotations", area=float("nan")),
    "area -1": every("annotations", area=-1),
    "area a word": every("annotations", area="big"),
    "area 0": every("annotations", area=0),
    "annotation ids 0": every("annotations", id=0),
    "annotation ids from 1 in each image": lambda c: [
        a.update(id=sum(b["image_id"] == a["image_id"] for b in c["annotations"][:i]))
        for i, a in enumerate(c["annotations"])
    ],
    "annotations twice": lambda c: c["annotations"].extend(copy.deepcopy(c["annotations"])),
    "annotations of other images": lambda c: c["annotations"].extend(
        {**a, "id": 50 + i, "image_id": 50 + i} for i, a in enumerate(c["annotations"][:3])
    ),
    "categories twice": lambda c: c["categories"].extend(copy.deepcopy(c["categories"])),
    "images twice": lambda c: c["images"].extend(copy.deepcopy(c["images"])),
    "paths for names": both(
        lambda c: [image.update(path=f"/data/{image['file_name']}") for image in c["images"]],
        every("images", file_name=...),
    ),
    "addresses for names": both(
        lambda c: [image.update(coco_url=f"http://images.org/train/{image['file_name']}") for image in c["images"]],
        every("images", file_name=...),
    ),
    "keys of other tools": both(every("images", license=1, date_captured=""), every("annotations", attributes={})),
    "a duplicate info": lambda c: c.update(info={}, licenses=[], videos=[]),
}


@pytest.mark.parametrize("name", SAME)
def test_coco_as_other_tools_write_it_is_the_same_data(name, loaded):
    plain, data = loaded(lambda content: None), loaded(SAME[name])
    assert (data.class_names, objects(data), data.category_ids) == (["disc", "box"], objects(plain), [1, 5])
    assert all(np.array_equal(data.parts[part].area, plain.parts[part].area) for part in plain.parts)


@pytest.mark.parametrize(
    ("name", "assumed"),
    [
        ("no sizes", {"images without width and height, which are those of the file": 6}),
        ("area -1", {"areas that are no number from 0 on, for which that of the box is taken": 11}),
        ("area 0", {"files in which every area is 0, for which that of the box is taken": 1}),
        ("annotation ids 0", {"annotations that share an id, which count one by one": 10}),
        ("annotations twice", {"annotations that repeat another one, which are left out": 11}),
        ("annotations of other images", {"annotations of images that the file does not list, which are left out": 3}),
        ("categories twice", {"category entries that are there twice": 2}),
        ("paths for names", {"images without file_name, whose path is taken": 6, FOLDER: 6}),
    ],
)
def test_what_is_assumed_is_counted(name, assumed, loaded):
    assert {what: len(names) for what, names in told(loaded(SAME[name])).items()} == assumed


def test_an_image_listed_under_two_ids_has_the_annotations_of_both(loaded):
    def change(content):
        content["images"].append({**content["images"][0], "id": 50})
        content["annotations"][1]["image_id"] = 50
        content["annotations"].append({**content["annotations"][0], "id": 99, "image_id": 50})

    data = loaded(change)
    assert objects(data) == objects(loaded(lambda content: None))
    assert told(data) == {
        "images listed under several ids, whose annotations are joined": ["image 50"],
        "annotations that repeat another one, which are left out": ["annotation 99"],
    }


def test_names_of_classes_may_be_numbers(loaded):
    data = loaded(every("categories", name=lambda name: {"disc": 7, "box": 8.0}[name]))
    assert data.class_names == ["7", "8"]
    assert told(data) == {"names of classes that are numbers": ["7", "8.0"]}


def test_boxes_that_stick_out_are_clipped_and_counted(loaded):
    def change(content):
        content["annotations"][0].update(bbox=[-7.5, 5, 12.5, 50], area=None)
        content["annotations"][1].update(bbox=[35, -9, 1000, 19], area=7.0)

    data = loaded(change, masks=True)
    assert objects(data)["1.png"] == [(0, [0, 5, 5, 30]), (1, [35, 0, 40, 10])]
    assert told(data)["boxes that stick out of their image, which are clipped"] == ["annotation 1", "annotation 2"]
    area = [float(a) for part in data.parts.values() for a in part.area]
    assert {125.0, 7.0} < set(area)


def renamed(tmp_path, *names, pristine):
    """Copies of the images of `pristine`, image i called by `names` in turn."""
    for number in range(1, 7):
        for name in names:
            path = tmp_path / "train" / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pristine / "train" / f"{number}.png", path)


ACCENT = "\N{LATIN SMALL LETTER E WITH ACUTE}"
SPELLED = {
    "composed in the file, decomposed on disk": (ACCENT + "{}.png", "e\u0301{}.png"),
    "decomposed in the file, composed on disk": ("e\u0301{}.png", ACCENT + "{}.png"),
    "in a folder of another spelling": (ACCENT + "/{}.png", "E\u0301/{}.PNG"),
    "percent signs": ("my%20photo%20{}.png", "my photo {}.png"),
    "percent signs in an address": ("http://somewhere/all/my%20photo%20{}.png", "my photo {}.png"),
    "percent signs on disk too": ("a%20{}.png", "a%20{}.png"),
    "a name without a suffix": ("a.{}.v1.0", "a.{}.v1.0.png"),
}


@pytest.mark.parametrize("name", SPELLED)
def test_names_of_images_in_other_spellings(name, written, tmp_path):
    folder, content = written
    said, stored = SPELLED[name]
    renamed(tmp_path, stored, pristine=folder)
    changed = copy.deepcopy(content)
    every("images", file_name=lambda name: said.format(name[:-4]))(changed)
    rewrite(tmp_path, changed)
    plain, data = objects(load_coco(folder)), objects(load_coco(tmp_path))
    assert data == {stored.format(name[:-4]).split("/")[-1]: boxes for name, boxes in plain.items()}


@pytest.mark.parametrize(
    ("said", "stored", "message"),
    [
        (
            "cam2/3.png",
            "cam2/other.png",
            r"absent images: image 3, .*/cam2/3.png \(no such file; one .* is 3.png\)",
        ),
        (
            "cam2/3.png",
            "cam1/3.png",
            r"absent images: image 3, .*/cam2/3.png \(no such file, and 2 others of that name",
        ),
        ("x/3.jpg", "cam2/other.png", r"absent images: image 3, .*/x/3.jpg \(no such file or directory\)"),
        ("v1.0.3", "cam2/v1.0.png", r"absent images: image 3, .*/v1.0.3 \(no such file or directory\)"),
        ("cam2", "cam2/other.png", r"absent images: image 3, .*/train/cam2 \(is no regular file\)"),
    ],
)
def test_an_absent_image_is_not_another_one(said, stored, message, written, tmp_path):
    folder, content = written
    renamed(tmp_path, "{}.png", pristine=folder)
    renamed(tmp_path, stored, pristine=folder)
    changed = copy.deepcopy(content)
    changed["images"][2]["file_name"] = said
    rewrite(tmp_path, changed)
    for options in {}, {"verify": False}:
        with pytest.raises(ValueError, match=message):
            load_coco(tmp_path, **options)


@pytest.mark.parametrize("name", ["3.png", "3.PNG", "3.jpg", "x/3.png"])
def test_a_pipe_is_no_image(name, written, tmp_path):
    folder, content = written
    renamed(tmp_path, "{}.png", pristine=folder)
    (tmp_path / "train" / "3.png").unlink()
    os.mkfifo(tmp_path / "train" / "3.png")
    changed = copy.deepcopy(content)
    changed["images"][2]["file_name"] = name
    rewrite(tmp_path, changed)
    with pytest.raises(
        ValueError, match=rf"absent images: image 3, .*/train/{name} \((is no regular file|no such file)"
    ):
        load_coco(tmp_path)


def test_an_image_in_another_folder_than_is_said_is_counted(loaded):
    data = loaded(lambda content: content["images"][2].update(file_name="cam2/3.png"))
    assert told(data) == {"images found in another folder than is said": ["image 3 (3.png)"]}


def test_a_path_of_this_machine_names_its_file_alone(written, tmp_path):
    folder, content = written
    renamed(tmp_path, "{}.png", "copies/{}.png", pristine=folder)
    changed = copy.deepcopy(content)
    every("images", file_name=lambda name: str(tmp_path / "train" / name))(changed)
    rewrite(tmp_path, changed)
    data = load_coco(tmp_path)
    assert (objects(data), data.assumed) == (objects(load_coco(folder)), {})


SQUARE = [5.0, 5.0, 15.0, 5.0, 15.0, 20.0, 5.0, 20.0]
RUNS = [155, *[15, 15] * 9, 15, 760]
HALF, REST = [155, *[15, 15] * 4, 15, 910], [305, *[15, 15] * 4, 15, 760]
PACKED = b"k4??00000000000000000Yg0"
PAIRS = [[5.0, 5.0], [15.0, 5.0], [15.0, 20.0], [5.0, 20.0]]


@pytest.mark.parametrize(
    ("segmentation", "columns", "assumed"),
    [
        ([SQUARE], (5, 15), 0),
        (SQUARE, (5, 15), 1),
        (PAIRS, (5, 15), 1),
        ([PAIRS], (5, 15), 0),
        ([SQUARE, [1.0, 2.0]], (5, 15), 1),
        ([[1.0, 2.0, 3.0, 4.0], SQUARE], (5, 15), 1),
        ([SQUARE, []], (5, 15), 1),
        ([SQUARE, [1.0, 2.0, 3.0, 4.0, float("nan"), 6.0]], (5, 15), 1),
        ([SQUARE, [1.0, 2.0, 3.0, 4.0, 1e8, 6.0]], (5, 15), 1),
        ([[-20.0, 5.0, 15.0, 5.0, 15.0, 20.0, -20.0, 20.0]], (0, 15), 1),
        ([[5.0, 5.0, 60.0, 5.0, 60.0, 20.0, 5.0, 20.0]], (5, 40), 1),
        ({"counts": RUNS}, (5, 15), 1),
        ([{"size": [30, 40], "counts": RUNS}], (5, 15), 1),
        ([{"size": [30, 40], "counts": HALF}, {"size": [30, 40], "counts": REST}], (5, 15), 1),
        ({"size": [30, 40], "counts": str(PACKED)}, (5, 15), 1),
        ({"size": [30, 40], "counts": PACKED.decode()}, (5, 15), 0),
        ({"size": [30.0, 40.0], "counts": [float(n) for n in [155, *[15, 15] * 9, 15, 760]]}, (5, 15), 0),
    ],
)
def test_polygons_as_other_tools_write_them(segmentation, columns, assumed):
    from faster_coco_eval.core.mask import decode

    said = []
    mask = decode({"size": [30, 40], "counts": segmentation_rle(segmentation, 30, 40, said)})
    expected = np.zeros((30, 40), bool)
    expected[5:20, slice(*columns)] = True
    assert np.array_equal(mask > 0, expected)
    assert len(said) == assumed


def test_bytes_as_text_keep_their_backslash():
    packed = b"o15\\S1"
    assert segmentation_rle({"size": [30, 40], "counts": str(packed)}, 30, 40, []) == packed


def test_hostile_numbers_and_run_lengths_are_bounded(loaded, written, tmp_path):
    with pytest.raises(ValueError, match=r"images of more than data.max_pixels=178956970: image 1"):
        loaded(every("images", width=10**5, height=10**5), masks=True, verify=False)
    crowd = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": [SQUARE], "id": None}] * 300
    with pytest.raises(ValueError, match=r"images whose masks would take more than 16 GiB: 1.png \(302 masks\)"):
        loaded(
            lambda c: (
                (every("images", width=10**4, height=10**4)(c), every("annotations", segmentation=[SQUARE])(c))
                and c["annotations"].extend(crowd)
            ),
            masks=True,
            verify=False,
        )
    (tmp_path / "train.json").write_text('{"images": [' + "9" * 5000 + "]}")
    with pytest.raises(ValueError, match=r"is no JSON: .*digits"):
        load_coco(tmp_path)


# EXIF


@pytest.fixture
def turned(tmp_path):
    """Data whose JPEGs are stored on their side, as a function of the sizes that the file of annotations says."""

    def load(sizes, said, **options):
        images, annotations = [], []
        for number, ((width, height), (w, h)) in enumerate(zip(sizes, said, strict=True), 1):
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[2:10, 4:20] = 255
            exif = Image.Exif()
            exif[0x0112] = 6
            (tmp_path / "train").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "train" / f"{number}.jpg", exif=exif, quality=95)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": w, "height": h})
            stored = (w, h) == (width, height)
            box = [4, 2, 16, 8] if stored else [height - 10, 4, 8, 16]
            annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
        categories = [{"id": 1, "name": "white"}]
        rewrite(tmp_path, {"images": images, "annotations": annotations, "categories": categories})
        return load_coco(tmp_path, **options)

    return load


def right(data):
    """For each image, whether its box holds what is white."""
    found = []
    for part in data.parts:
        for i in range(data.counts[part]):
            (box,), picture = data.target(part, i)["boxes"].int().tolist(), data.picture(part, i)[0] > 128
            found.append(bool(picture[box[1] + 1 : box[3] - 1, box[0] + 1 : box[2] - 1].all()) and picture.sum() < 150)
    return found


WIDE, HIGH, EVEN = (40, 30), (30, 40), (32, 32)


def test_width_and_height_say_if_exif_counts(turned):
    assert all(right(turned([WIDE] * 4, [HIGH] * 4)))
    data = turned([WIDE] * 4, [WIDE] * 4)
    assert all(right(data))
    assert [len(names) for names in data.assumed.values()] == [4]
    data = turned([WIDE] * 4, [WIDE] * 4, verify=False)
    assert all(right(data))


def test_square_turned_images_follow_the_others_or_the_option(turned):
    data = turned([WIDE, WIDE, EVEN, EVEN], [WIDE, WIDE, EVEN, EVEN])
    assert all(right(data))
    assert sorted(len(names) for names in data.assumed.values()) == [2, 2]
    data = turned([EVEN] * 4, [EVEN] * 4)
    assert not any(right(data))  # nothing tells; it is said
    ((what, names),) = data.assumed.items()
    assert "it is applied (data.exif=...)" in what
    assert len(names) == 4
    data = turned([EVEN] * 4, [EVEN] * 4, exif="ignore")
    assert all(right(data))
    assert not data.assumed
    with pytest.raises(ValueError, match="30x40, not 40x30"):
        turned([WIDE] * 4, [WIDE] * 4, exif="apply")


# Pascal VOC


def voc(tmp_path, names=("a", "b c", "d 1", "e"), lists=True, images="JPEGImages", pages="Annotations", **changes):
    for i, name in enumerate(names):
        write(tmp_path / images / f"{name}.png", i)
        (tmp_path / pages).mkdir(parents=True, exist_ok=True)
        text = changes.get("page", annotation)(name, thing(changes.get("label", "dog"), 2, 3, 9, 8))
        (tmp_path / pages / f"{name}{changes.get('ending', '.xml')}").write_text(text)
    if lists:
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        line = changes.get("line", "{}{}")
        text = "\n".join(line.format(*pair) for pair in zip(names, ("", "  1", " -1", ".jpg"), strict=True))
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(text.encode(changes.get("encoding", "utf-8")))
    return tmp_path


def load_voc(root, **options):
    plain = {"num_workers": 0, "batch_size": 2, "min_size": None, "max_size": None, "augment": None}
    return build("voc", root=str(root), **plain | {"val_set": None, "test_fraction": 0.0} | options)


def page(filename="", size="<size><width>20</width><height>12</height></size>"):
    def write_page(name, *found):
        return f"<annotation>{filename.format(name)}{size}{''.join(found)}</annotation>"

    return write_page


VOCS = {
    "names with spaces": {},
    "a byte-order mark": {"encoding": "utf-8-sig"},
    "UTF-16": {"encoding": "utf-16"},
    "no file name": {"page": page()},
    "an empty file name": {"page": page("<filename/>")},
    "a foreign path": {"page": page("<filename>C:\\Users\\me\\{}.png</filename>")},
    "a foreign folder": {"page": page("<filename>/data/mine/{}.png</filename>")},
    "a foreign suffix": {"page": page("<filename>{}.jpg</filename>")},
    "no suffix": {"page": page("<filename>{}</filename>")},
    "another name": {"page": page("<filename>IMG_{}.jpg</filename>")},
    "size 0x0": {"page": page(size="<size><width>0</width><height>0</height></size>")},
    "no size": {"page": page(size="")},
    "an empty size": {"page": page(size="<size><width/><height/></size>")},
    "no lists": {"lists": False},
    "images beside the annotations": {"lists": False, "images": ".", "pages": "."},
    "a folder a part": {"lists": False, "images": "train", "pages": "train"},
    "small letters": {"lists": False, "images": "images", "pages": "annotations"},
    "lists with paths": {"line": "JPEGImages/{}.png"},
    "lists with paths of another machine": {"line": "C:\\VOC\\JPEGImages\\{}.jpg"},
    "annotations in capitals": {"ending": ".XML"},
    "annotations in a folder below": {"pages": "Annotations/part1"},
    "annotations in a folder below, no lists": {"pages": "Annotations/part1", "lists": False},
    "annotations and images in folders below": {"pages": "Annotations/p", "images": "JPEGImages/p", "page": page()},
    "tags in capitals": {"page": lambda *found: re.sub(r"</?[a-z]+>", lambda tag: tag[0].upper(), annotation(*found))},
    "a namespace": {"page": lambda *found: annotation(*found).replace("tion>", 'tion xmlns="http://x">', 1)},
    "another outermost tag": {"page": lambda *found: annotation(*found).replace("annotation>", "doc>")},
    "a tag around": {"page": lambda *found: f"<annotations>{annotation(*found)}</annotations>"},
    "objects in a list": {"page": lambda name, *found: annotation(name, "<objects>", *found, "</objects>")},
    "spaces around a class": {"label": " dog\n"},
}


@pytest.mark.parametrize("name", VOCS)
def test_voc_as_other_tools_write_it_is_the_same_data(name, tmp_path):
    data = load_voc(voc(tmp_path, **VOCS[name]))
    assert data.class_names == ["dog"]
    assert objects(data) == {f"{name}.png": [(0, [1, 2, 9, 8])] for name in ("a", "b c", "d 1", "e")}
    assert all(data.parts["train"].sizes.tolist()[0] == [12, 20] for _ in range(1))


@pytest.mark.parametrize("above", [1, 2])
def test_a_root_above_the_only_data_set_is_read(above, tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    data = load_voc(voc(folder) and folder.parents[above - 1])
    assert data.counts == {"train": 3, "val": 1}
    what = "folders above the one with Annotations/, which is taken"
    assert told(data)[what] == [str(folder)]


@pytest.mark.parametrize(
    ("boxes", "expected", "assumed"),
    [
        ([(1, 1, 20, 12), (2, 3, 9, 8)], [[0, 0, 20, 12], [1, 2, 9, 8]], None),
        ([(0, 0, 19, 11), (2, 3, 9, 8)], [[0, 0, 20, 12], [2, 3, 10, 9]], "count pixels from 0 up to the last one"),
        ([(0, 0, 0, 0), (2, 3, 9, 8)], [[0, 0, 1, 1], [2, 3, 10, 9]], "count pixels from 0 up to the last one"),
        ([(5, 0, 20, 12), (2, 3, 9, 8)], [[5, 0, 20, 12], [2, 3, 9, 8]], "measured from 0 up to their edges"),
        ([(0.5, 3, 9, 8), (2, 3, 9, 8)], [[0.5, 3, 9, 8], [2, 3, 9, 8]], "measured from 0 up to their edges"),
    ],
)
def test_boxes_count_from_0_if_any_begins_there(boxes, expected, assumed, tmp_path):
    voc(tmp_path, names=("a", "b"), lists=False)
    for name, box in zip("ab", boxes, strict=True):
        (tmp_path / "Annotations" / f"{name}.xml").write_text(annotation(name, thing("dog", *box)))
    data = load_voc(tmp_path)
    assert objects(data) == {f"{name}.png": [(0, box)] for name, box in zip("ab", expected, strict=True)}
    lines = [what for what in data.assumed if what.startswith("boxes that")]
    assert [assumed in line for line in lines] == [True] * (assumed is not None)


def test_normalised_boxes_of_voc_are_refused(tmp_path):
    voc(tmp_path, names=("a", "b"), lists=False)
    for name in "ab":
        (tmp_path / "Annotations" / f"{name}.xml").write_text(annotation(name, thing("dog", 0.1, 0.2, 0.5, 1.0)))
    with pytest.raises(
        ValueError, match=r"all within 0..1, which looks normalised; multiply them by width and height$"
    ):
        load_voc(tmp_path)


@pytest.mark.parametrize(
    ("said", "difficult", "lines"),
    [
        *[(said, True, 0) for said in ("true", "Yes", "1")],
        *[(said, False, 0) for said in ("false", "no", "0.0", "", "Unspecified")],
        ("maybe", False, 1),
    ],
)
def test_difficult_in_words(said, difficult, lines, tmp_path):
    voc(tmp_path, names=("a", "b"), lists=False)
    text = annotation("a", thing("dog", 2, 3, 9, 8, difficult=said), thing("dog", 1, 1, 4, 4))
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    data = load_voc(tmp_path)
    crowds = {data.source(part, 0)[-5]: data.target(part, 0)["crowd"].tolist() for part in data.parts}
    assert crowds == {"a": [difficult, False], "b": [False]}
    assert len([what for what in data.assumed if "difficult" in what]) == lines


def test_an_object_within_an_object_is_none_of_its_own(tmp_path):
    voc(tmp_path, names=("a", "b"), lists=False)
    person, head = thing("person", 2, 3, 9, 8), thing("head", 3, 3, 5, 5)
    text = annotation("a", person.replace("</object>", f"{head}</object>"))
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    data = load_voc(tmp_path)
    assert data.class_names == ["dog", "person"]
    assert objects(data)["a.png"] == [(1, [1, 2, 9, 8])]
    assert told(data)["annotations with objects within an object, which are left out"] == ["Annotations/a.xml"]


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "big5", "shift_jis", "utf-16", "latin-1"])
def test_encodings_of_pages(encoding, tmp_path):
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}" if encoding == "latin-1" else "\u5927"
    voc(tmp_path, names=("a", "b"), lists=False)
    for page in "ab":
        text = f'<?xml version="1.0" encoding="{encoding}"?>' + annotation(page, thing(name, 2, 3, 9, 8))
        (tmp_path / "Annotations" / f"{page}.xml").write_bytes(text.encode(encoding))
    assert load_voc(tmp_path).class_names == [name]


def test_a_name_with_dots_and_no_suffix_is_its_own(tmp_path):
    data = load_voc(voc(tmp_path, ("v1.0.a", "v1.0.b", "x.y", "z"), lists=False, page=page("<filename>{}</filename>")))
    assert sorted(objects(data)) == ["v1.0.a.png", "v1.0.b.png", "x.y.png", "z.png"]
    assert "annotations that name another image, taken for that of their own name" not in data.assumed


def test_folders_as_roboflow_writes_them(tmp_path):
    voc(tmp_path, ("a", "b"), lists=False, images="train", pages="train")
    voc(tmp_path, ("c",), lists=False, images="valid", pages="valid")
    data = load_voc(tmp_path, val_set="valid")
    assert data.counts == {"train": 2, "val": 1}


def test_classes_that_differ_in_spaces_are_one(tmp_path):
    write(tmp_path / "1.png", 1)
    (tmp_path / "1.xml").write_text(annotation("1", thing("dog", 1, 1, 4, 4), thing("dog ", 5, 5, 9, 9)))
    write(tmp_path / "2.png", 2)
    (tmp_path / "2.xml").write_text(annotation("2", thing("Dog", 1, 1, 4, 4)))
    data = load_voc(tmp_path)
    assert data.class_names == ["Dog", "dog"]
    what = "groups of classes whose names differ in case or spaces alone, or not to the eye"
    assert told(data)[what] == ["'Dog' and 'dog'"]


def test_entities_that_grow_are_stopped_at_once(tmp_path):
    voc(tmp_path)
    entities = '<!ENTITY a0 "dogdogdogdog">'
    entities += "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = OBJECT.format(1, 1, 4, 4, name="&a11;", difficult=0)
    (tmp_path / "Annotations" / "a.xml").write_text(f"<!DOCTYPE x [{entities}]><annotation>{text}</annotation>")
    started = time.process_time()
    with pytest.raises(ValueError, match=r"unreadable annotations: Annotations/a.xml \(limit on input amplif"):
        load_voc(tmp_path)
    assert time.process_time() - started < 10
