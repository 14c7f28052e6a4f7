"""`data.exclude`: what it leaves out and relabels, and what it refuses in one line."""

from __future__ import annotations

import hashlib
import logging

import pytest

from bbframe.data.exclusion import image_name
from tests.data.helpers import build, load_coco, write, write_coco

HEAD = "part,image,problem,score,action,label,suggestion,other"


def fixes(place, *rows, head="image,action,suggestion", name="fixes.csv"):
    path = place / name
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(path)


def names(data, part):
    return [image_name(data.parts[part], i) for i in range(data.counts[part])]


def test_images_are_left_out_and_relabelled_and_nothing_else_moves(tmp_path, caplog):
    caplog.set_level(logging.INFO, "bbframe")
    before = build()
    file = fixes(tmp_path, "scan 3,exclude,", "scan 5,relabel,7", "scan 7,check,", "scan 8,keep,", "nobody,exclude,")
    after = build(exclude=file)
    assert names(after, "train") == [name for name in names(before, "train") if name != "scan 3"]
    labels = dict(zip(names(before, "train"), before.parts["train"].labels, strict=True))
    now = dict(zip(names(after, "train"), after.parts["train"].labels, strict=True))
    assert {name for name in now if now[name] != labels[name]} == {"scan 5"}
    assert now["scan 5"] == 7
    assert [names(after, part) for part in ("val", "test")] == [names(before, part) for part in ("val", "test")]
    assert after.exclusion.counts() == {
        "file": file,
        "sha256": hashlib.sha256((tmp_path / "fixes.csv").read_bytes()).hexdigest(),
        "left_out": 1,
        "relabelled": 1,
        "validation": None,
        "unmatched": 1,
    }
    (said,) = [message for message in caplog.messages if message.startswith("exclude")]
    assert "left out 1 image (1 train), relabelled 1 image (1 train), ignored 2 rows" in said
    assert said.endswith("1 row matches no image: nobody")


def test_the_fingerprint_of_the_test_changes_with_its_images_and_classes(tmp_path):
    def fingerprint(data):
        return data.fingerprint("test", range(data.counts["test"]))

    before = build()
    first = names(before, "test")[0]
    other = str((before.parts["test"].labels[0] + 1) % 10)
    found = {fingerprint(before)}
    found.add(fingerprint(build(exclude=fixes(tmp_path, f"{first},exclude,"))))
    found.add(fingerprint(build(exclude=fixes(tmp_path, f"{first},relabel,{other}"))))
    assert len(found) == 3
    assert fingerprint(build(exclude=fixes(tmp_path, "scan 3,exclude,"))) in found  # an image of train


def test_names_with_spaces_and_letters_and_commas_match(tmp_path):
    root = tmp_path / "my photos"
    strange = ["a b.png", "é ü 日本.png", "x,y.png", '"q".png', "=1+1.png"]
    for kind in ("köter", "cat"):
        for number, name in enumerate([*strange, *(f"{i}.png" for i in range(6))]):
            write(root / kind / name, shade=100 * len(kind) + number)
    quoted = [
        '"köter/x,y.png",exclude,',
        '"köter/""q"".png",exclude,',
        "köter/a b.png,exclude,",
        "cat/é ü 日本.png,exclude,",
    ]
    data = build("image_folder", root=str(root), exclude=fixes(tmp_path, *quoted, f"{root}/cat/=1+1.png,exclude,"))
    assert sum(data.counts.values()) == 22 - 5
    assert not data.exclusion.unmatched


def test_a_spreadsheet_may_write_a_mark_and_semicolons_and_a_text_file_is_a_list_of_names(tmp_path):
    path = tmp_path / "fixes.csv"
    path.write_bytes("\ufeffimage;action;suggestion\r\nscan 3;EXCLUDE;\r\n;;\r\n".encode())
    assert build(exclude=str(path)).counts["train"] == 1258
    listed = tmp_path / "names.txt"
    listed.write_text("scan 3\n\n  scan 5  \n")
    assert build(exclude=str(listed)).counts["train"] == 1257


def test_an_unreadable_file_that_is_left_out_ends_no_run_and_moves_no_other(folder, tmp_path):
    root = folder({"cat": 20, "dog": 20})
    whole = build("image_folder", root=str(root))
    broken = root / "cat" / "5.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match="unreadable"):
        build("image_folder", root=str(root))
    data = build("image_folder", root=str(root), exclude=fixes(tmp_path, "cat/5.png,exclude,"))
    for part in ("train", "val", "test"):
        assert names(data, part) == [name for name in names(whole, part) if name != "cat/5.png"]


def test_scenes_keep_their_names_and_objects(tmp_path):
    before = build("digit_scenes", train_scenes=12, val_scenes=3, test_scenes=3)
    file = fixes(tmp_path, "train scene 4,exclude,", "test scene 0,exclude,")
    after = build("digit_scenes", train_scenes=12, val_scenes=3, test_scenes=3, exclude=file)
    assert after.counts == {"train": 11, "val": 3, "test": 2}
    assert names(after, "train")[3:5] == ["train scene 3", "train scene 5"]
    for old, new in ((5, 4), (11, 10)):
        one, other = (data.parts["train"].target(i, True) for data, i in ((before, old), (after, new)))
        assert all((one[key] == other[key]).all() for key in one)
        assert before.parts["train"].read(old).tobytes() == after.parts["train"].read(new).tobytes()


def test_images_of_coco_are_left_out_by_path_and_part_even_absent_ones(tmp_path):
    for part in ("train", "val"):
        write_coco(tmp_path, part)
    (tmp_path / "train" / "4.png").write_bytes(b"no image")
    (tmp_path / "train" / "5.png").unlink()
    rows = ["train,1.png,exclude", "train,4.png,exclude", f",{tmp_path}/train/5.png,exclude"]
    with pytest.raises(ValueError, match=r"names '1\.png', which 2 images bear; write which one's part"):
        load_coco(tmp_path, "train", "val", exclude=fixes(tmp_path, *rows, ",1.png,exclude", head="part,image,action"))
    file = fixes(tmp_path, *rows, head="part,image,action")
    data = load_coco(tmp_path, "train", "val", exclude=file)
    assert data.counts == {"train": 3, "val": 6}
    assert data.exclusion.counts()["left_out"] == 3
    assert data.exclusion.counts()["unmatched"] == 0


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        (["scan 3,exclude"], "image,acton", "has the column 'acton'; did you mean 'action'?"),
        (["scan 3"], "image", "lacks the column 'action'; it needs image and action"),
        (["scan 3,delete,"], None, "row 2: action='delete' must be exclude, relabel, check or keep"),
        (["scan 3,exclude,", ",exclude,"], None, "row 3: names no image"),
        (["scan 3,relabel,"], None, "row 2: relabel needs the new class in the column suggestion"),
        (["scan 3,relabel,eleven"], None, "'scan 3' cannot become 'eleven'; choose from: 0, 1, 2"),
        (["scan 3,relabel,4", "scan 3,relabel,5"], None, "gives 'scan 3' two classes; keep one of the rows"),
        (["a,b,c,d"], None, "row 2: has another number of cells than the first row"),
        (["Training,scan 3,exclude"], "part,image,action", "part='training' must be train, val or test, or empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(rows, head, message, tmp_path):
    with pytest.raises(ValueError, match="exclude") as error:
        build(exclude=fixes(tmp_path, *rows, head=head or "image,action,suggestion"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.csv cannot be read: no such file or directory"):
        build(exclude=str(tmp_path / "gone.csv"))
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        build(exclude=str(tmp_path / "x.csv"))


def test_no_part_and_no_class_of_train_may_be_left_empty(tmp_path):
    before = build()
    test = [f"{name},exclude," for name in names(before, "test")]
    with pytest.raises(ValueError, match="leaves no test images"):
        build(exclude=fixes(tmp_path, *test))
    zeros = [
        f"{n},exclude,"
        for n, label in zip(names(before, "train"), before.parts["train"].labels, strict=True)
        if not label
    ]
    with pytest.raises(ValueError, match="leaves no train images of these classes: 0; remove their rows"):
        build(exclude=fixes(tmp_path, *zeros))
    zeros = [
        f"{n},exclude," for n, label in zip(names(before, "val"), before.parts["val"].labels, strict=True) if not label
    ]
    data = build(exclude=fixes(tmp_path, *zeros))
    assert data.assumed["classes that data.exclude leaves without val images"] == {"0": None}


def test_objects_are_not_relabelled(tmp_path):
    with pytest.raises(ValueError, match="its objects have classes, not the image; edit the annotations"):
        build(
            "digit_scenes",
            train_scenes=4,
            val_scenes=2,
            test_scenes=2,
            exclude=fixes(tmp_path, "train scene 1,relabel,3"),
        )


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("Image;Action;Suggestion;My note", "scan 3;EXCLUDE;;a, b"),
        ("part\timage\taction", "train\tscan 3\texclude"),
        ("Part,Image,Action", "Train,scan 3 ,exclude"),
        ("image,action", "./scan 3,exclude"),
        ("image,action,score", "scan 3,exclude"),
    ],
)
@pytest.mark.parametrize("name", ["fixes.csv", "fixes.txt"])
def test_what_spreadsheets_and_people_make_of_a_file_is_read(tmp_path, head, row, name):
    file = fixes(tmp_path, row, head=head, name=name)
    assert names(build(exclude=file), "train") == [name for name in names(build(), "train") if name != "scan 3"]


def test_a_row_counts_in_its_part_alone_and_rows_that_all_match_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no row to exclude or relabel matches an image, such as scan 3"):
        build(exclude=fixes(tmp_path, "val,scan 3,exclude", head="part,image,action"))


def test_another_file_than_a_run_has_recorded_is_refused(tmp_path):
    file = fixes(tmp_path, "scan 3,exclude,")
    recorded = build(exclude=file).found_options()
    assert build(exclude=file, **recorded).exclusion.sha256 == recorded["exclude_sha256"]
    fixes(tmp_path, "scan 5,exclude,")
    with pytest.raises(ValueError, match="has changed since the run that recorded it"):
        build(exclude=file, **recorded)
    assert build(exclude=file).exclusion.left_out == {"train": 1}


def test_what_changes_in_the_validation_images_is_told_apart(tmp_path):
    first, second = names(build(), "val")[:2]
    found = [
        build(exclude=fixes(tmp_path, row)).exclusion.counts()["validation"]
        for row in ("scan 3,exclude,", f"{first},exclude,", f"{second},exclude,")
    ]
    assert found[0] is None
    assert len(set(found)) == 3
