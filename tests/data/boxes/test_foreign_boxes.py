"""Annotations as other tools write them: read with the right values, and what was assumed is counted."""

import copy
import time

import numpy as np
import pytest
from PIL import Image

from bbframe.data.boxes.coco import segmentation_rle
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
    "paths of another machine": every("images", file_name=lambda name: f"/home/me/photos/{name}"),
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
    "keys of other tools": both(every("images", license=1, date_captured=""), every("annotations", attributes={})),
    "a duplicate info": lambda c: c.update(info={}, licenses=[], videos=[]),
}


@pytest.mark.parametrize("name", SAME)
def test_coco_as_other_tools_write_it_is_the_same_data(name, loaded):
    plain, data = loaded(lambda content: None), loaded(SAME[name])
    assert (data.class_names, objects(data), data.category_ids) == (["disc", "box"], objects(plain), [1, 5])


def test_boxes_that_stick_out_are_clipped_and_counted(loaded):
    def change(content):
        content["annotations"][0].update(bbox=[-7.5, 5, 12.5, 50], area=None)
        content["annotations"][1].update(bbox=[35, -9, 1000, 19], area=7.0)

    data = loaded(change, masks=True)
    assert objects(data)["1.png"] == [(0, [0, 5, 5, 30]), (1, [35, 0, 40, 10])]
    assert told(data)["boxes that stick out of their image, which are clipped"] == ["annotation 1", "annotation 2"]
    area = [float(a) for part in data.parts.values() for a in part.area]
    assert {125.0, 7.0} < set(area)


SQUARE = [5.0, 5.0, 15.0, 5.0, 15.0, 20.0, 5.0, 20.0]
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
        (tmp_path / pages / f"{name}.xml").write_text(text)
    if lists:
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        text = "\n".join(f"{name}{end}" for name, end in zip(names, ("", "  1", " -1", ".jpg"), strict=True))
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
    "spaces around a class": {"label": " dog\n"},
}


@pytest.mark.parametrize("name", VOCS)
def test_voc_as_other_tools_write_it_is_the_same_data(name, tmp_path):
    data = load_voc(voc(tmp_path, **VOCS[name]))
    assert data.class_names == ["dog"]
    assert objects(data) == {f"{name}.png": [(0, [1, 2, 9, 8])] for name in ("a", "b c", "d 1", "e")}
    assert all(data.parts["train"].sizes.tolist()[0] == [12, 20] for _ in range(1))


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
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"unreadable annotations: Annotations/a.xml \(limit on input amplif"):
        load_voc(tmp_path)
    assert time.monotonic() - started < 10
