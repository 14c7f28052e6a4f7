"""Pascal VOC's format: what is written comes back, and every fault of the files is told before training."""

import re
import time

import pytest

from bbframe.data.boxes import voc_pages
from tests.data.helpers import build, write

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def annotation(name, *objects, width=20, height=12):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.png</filename>{size}{''.join(objects)}</annotation>"


def thing(name, *box, difficult=0):
    return OBJECT.format(*box, name=name, difficult=difficult)


@pytest.fixture
def root(tmp_path):
    """Four images for training, two for validation."""
    files = {
        "a": [thing("dog", 1, 1, 20, 12), thing("cat", 3, 4, 10, 8)],
        "b": [thing("dog", 2, 2, 5, 5, difficult=1), thing("dog", 6, 6, 9, 9)],
        "c": [],
        "d": [thing("cow", 5, 5, 5, 5)],
        "e": [thing("dog", 1, 1, 4, 4), thing("cow", 1, 1, 4, 4, difficult=1)],
        "f": [thing("cat", 2.5, 1, 4, 4)],
    }
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for i, (name, objects) in enumerate(files.items()):
        write(tmp_path / "JPEGImages" / f"{name}.png", i)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(annotation(name, *objects))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("e  1\nf -1\n")
    return tmp_path


def load(root, **options):
    plain = {"num_workers": 0, "batch_size": 4, "min_size": None, "max_size": None, "augment": None}
    return build("voc", root=str(root), **plain | options)


def test_what_is_written_comes_back(root):
    data = load(root)
    assert data.class_names == ["cat", "cow", "dog"]
    assert (data.counts, data.test_part) == ({"train": 4, "val": 2}, "val")
    first = data.target("train", 0)
    assert first["boxes"].tolist() == [[0, 0, 20, 12], [2, 3, 10, 8]]
    assert first["labels"].tolist() == [2, 0]
    assert first["area"].tolist() == [240, 40]
    assert data.target("train", 3)["boxes"].tolist() == [[4, 4, 5, 5]]
    assert data.target("val", 0)["crowd"].tolist() == [False, True]
    assert data.target("val", 1)["boxes"].tolist() == [[1.5, 0, 4, 4]]
    assert data.source("val", 1) == str(root / "JPEGImages" / "f.png")
    (batch,) = data.train_dataloader()
    assert sorted(len(target["boxes"]) for target in batch["target"]) == [0, 1, 1, 2]


def test_sets_can_be_split(root):
    data = load(root, val_set=None, test_fraction=0.0)
    assert data.counts == {"train": 3, "val": 1}


def test_all_faults_are_told_at_once(root):
    (root / "Annotations" / "a.xml").write_text("<annotation><object>")
    (root / "Annotations" / "b.xml").write_text(
        annotation("b", thing("dog", 25, 1, 30, 4), thing("dog", "x", 1, 2, 2), thing("dog", 1, 1, 4, 4))
    )
    (root / "Annotations" / "c.xml").unlink()
    (root / "Annotations" / "e.xml").write_text(annotation("gone", thing("cow", 1, 1, 4, 4)))
    (root / "JPEGImages" / "e.png").unlink()
    (root / "Annotations" / "f.xml").write_text(annotation("f", thing("bird", 1, 1, 4, 4), thing("dog", 5, 1, 3, 4)))
    with pytest.raises(ValueError, match=r"^data: ") as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "train.txt: unreadable annotations: Annotations/a.xml (no element found: line 1, column 20)",
        "Annotations/c.xml (no such file or directory)",
        "boxes outside their image: object 1 of Annotations/b.xml (x1, y1, x2, y2 = 24, 0, 30, 4 in 20x12)",
        "malformed boxes: object 2 of Annotations/b.xml",
        "val.txt: absent images: Annotations/e.xml, ",
        "classes that no training image has: object 1 of Annotations/f.xml (bird)",
        "boxes without an area: object 2 of Annotations/f.xml",
    ):
        assert part in message
    data = load(root, on_error="skip", val_set=None, test_fraction=0.0)
    assert sum(data.counts.values()) == 2
    assert len(data.skipped) == 4


def test_other_faults(root):
    with pytest.raises(ValueError, match=r"Main/nothing.txt: cannot be read: no such file or directory"):
        load(root, val_set="nothing")
    with pytest.raises(ValueError, match=r"data: voc has no masks; choose a head without, or data=coco"):
        load(root, masks=True)
    (root / "Annotations" / "a.xml").write_text(annotation("../../gone", thing("dog", 1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"paths that leave the folder"):
        load(root)
    (root / "ImageSets" / "Main" / "val.txt").write_text("../a\n")
    with pytest.raises(ValueError, match=r"val.txt: '../a' is no name of an image"):
        load(root)


def test_no_fault_of_another_set_follows_from_a_wrong_list(root):
    with pytest.raises(
        ValueError, match=r"^data: [^;]*trian.txt: cannot be read: no such file or directory \(set[^;]*=train\)$"
    ):
        load(root, train_set="trian")


@pytest.mark.parametrize(
    ("renamed", "options", "advice"),
    [
        (
            {"train": "trainval"},
            {},
            "train.txt: cannot be read: no such file or directory (set data.train_set=trainval)",
        ),
        ({"val": "x"}, {}, "val.txt: cannot be read: no such file or directory (set data.val_set=null)"),
        ({"train": "x", "val": "dog_train"}, {"val_set": None}, "(set data.train_set to one of x)"),
        ({}, {"val_set": "vall"}, "vall.txt: cannot be read: no such file or directory (set data.val_set=val)"),
    ],
)
def test_a_list_that_is_not_there_is_answered_with_what_to_type(renamed, options, advice, root):
    for old, new in renamed.items():
        (root / "ImageSets" / "Main" / f"{old}.txt").rename(root / "ImageSets" / "Main" / f"{new}.txt")
    with pytest.raises(ValueError, match=re.escape(advice) + "$"):
        load(root, **options)


def test_a_folder_without_annotations_or_above_several_is_named(root, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"\(data.root=.*/other must be the folder with Annotations/\)"):
        load(tmp_path / "other", val_set=None)
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / "other" / year / "Annotations").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"holds 2 folders with Annotations/; set data.root=.*2007 or data.root=.*2012$"
    ):
        load(tmp_path / "other")


def test_a_page_of_something_else_is_no_image_without_objects(root):
    (root / "Annotations" / "a.xml").write_text("<a>" * 100_000 + "</a>" * 100_000)
    page = annotation("b", thing("dog", 2, 2, 5, 5))
    (root / "Annotations" / "b.xml").write_text(f"<pages>{page}{page}</pages>")
    (root / "Annotations" / "c.xml").write_text('<kml xmlns="http://x"/>')
    with pytest.raises(ValueError, match=r"train.txt: unreadable annotations: ") as caught:
        load(root, val_set=None)
    for told in (
        "Annotations/a.xml (is no annotation: its outermost tag is <a>)",
        "Annotations/b.xml (holds 2 annotations; write each into a file of its own)",
        "Annotations/c.xml (is no annotation: its outermost tag is <kml>)",
    ):
        assert told in str(caught.value)


def test_an_object_without_a_name_is_told_so(root):
    (root / "Annotations" / "a.xml").write_text(annotation("a", thing("dog", 1, 1, 4, 4), thing(" ", 1, 1, 4, 4)))
    with pytest.raises(ValueError, match=r"objects without a name: object 2 of Annotations/a.xml;"):
        load(root)


def test_an_encoding_that_python_lacks_is_named(root):
    (root / "Annotations" / "a.xml").write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(ValueError, match=r"Annotations/a.xml \(unknown encoding: klingon\)"):
        load(root)


@pytest.mark.long
def test_many_classes_are_looked_up_in_little_time(root):
    names = [f"c{i}" for i in range(4000)]
    for page in "abcd":
        things = (thing(name, 1, 1, 4, 4) for name in names)
        (root / "Annotations" / f"{page}.xml").write_text(annotation(page, *things))
    started = time.process_time()
    data = load(root, val_set=None, test_fraction=0.0)
    assert data.target("train", 0)["labels"].tolist() == [sorted(names).index(name) for name in names]
    assert time.process_time() - started < 5


def test_a_file_is_parsed_once(root, monkeypatch):
    parsed = []
    parse = voc_pages.ElementTree.parse
    monkeypatch.setattr(voc_pages.ElementTree, "parse", lambda path: parsed.append(path.stem) or parse(path))
    load(root)
    assert sorted(parsed) == list("abcdef")


def test_too_few_images_cannot_be_split(root):
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    way = r"add some, or set data.val_set=\.\.\.$"
    with pytest.raises(ValueError, match=rf"data: 1 image is too few to split into train, val; {way}"):
        load(root, val_set=None, test_fraction=0.0)


def test_entities_from_elsewhere_are_not_fetched(root):
    (root / "secret").write_text("dog")
    hostile = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{root}/secret">]>' + annotation("a", thing("&x;", 1, 1, 2, 2))
    (root / "Annotations" / "a.xml").write_text(hostile)
    with pytest.raises(ValueError, match=r"unreadable annotations: Annotations/a.xml \(undefined entity"):
        load(root)
