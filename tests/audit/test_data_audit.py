"""The audit of whole data sets: broken files, copies in every disguise, wrong labels, boxes; and its file of fixes."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.audit.data_audit import audit_data
from bbframe.audit.findings import Finding, spare_the_last, write_fixes
from bbframe.audit.network_features import image_features
from bbframe.data.fixes_file import COLUMNS, Fix, read_fixes
from tests.audit.test_perceptual_hash import photo
from tests.data.helpers import build, load_coco, write_coco
from tests.tiny import tiny

LOOSE = {"verify": False, "on_error": "skip"}


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """A folder of photos with one of each problem."""
    root = tmp_path_factory.mktemp("messy")
    number = 0
    for place, count in (("train/cat", 14), ("train/flöwer bed", 14), ("test/cat", 4), ("test/flöwer bed", 4)):
        (root / place).mkdir(parents=True)
        for i in range(count):
            tint = (60, 0, 0) if "cat" in place else (0, 60, 0)
            pixels = np.asarray(photo(number)).astype(int) // 2 + np.array(tint)
            Image.fromarray(pixels.astype(np.uint8)).save(root / place / f"{i}.png")
            number += 1
    cat = root / "train/cat"
    Image.open(cat / "1.png").save(root / "test/cat/other name.bmp")  # the same pixels: a leak
    Image.open(cat / "2.png").save(root / "test/cat/compressed.jpg", quality=95)  # nearly the same
    shutil.copy(cat / "3.png", cat / "3 again.png")
    Image.open(cat / "4.png").convert("RGBA").save(cat / "with alpha.png")
    Image.open(cat / "5.png").resize((80, 60)).save(cat / "smaller.png")
    shutil.copy(cat / "6.png", root / "train/flöwer bed/a cat too.png")
    (cat / "cut.png").write_bytes((cat / "7.png").read_bytes()[:300])
    (cat / "text.jpg").write_text("no image")
    Image.new("L", (40, 30), 255).save(cat / "grey.png")
    return root


@pytest.fixture(scope="module")
def audited(messy):
    return audit_data(build("image_folder", root=str(messy), val_fraction=0.1, **LOOSE))


def found(audit, problem):
    return {(one.image, one.other): one for one in audit.findings if one.problem == problem}


def test_unreadable_files_are_named_with_their_reason(audited):
    reasons = {one.image: (one.detail, one.action) for one in found(audited, "unreadable").values()}
    assert reasons.keys() == {"train/cat/cut.png", "train/cat/text.jpg"}
    assert reasons["train/cat/text.jpg"] == ("not an image", "exclude")


def test_a_leak_is_found_under_another_name_and_format_and_train_gives_way(audited):
    (leak,) = [one for one in found(audited, "leak").values() if one.other.startswith("test")]
    assert (leak.image, leak.other, leak.action) == ("train/cat/1.png", "test: test/cat/other name.bmp", "exclude")
    assert audited.summary.leaks[f"{leak.part}/test"] == 1


def test_a_compressed_copy_in_test_is_near_and_must_be_looked_at(audited):
    near = found(audited, "near leak")
    assert [key for key in near if "compressed" in key[1]] == [("train/cat/2.png", "test: test/cat/compressed.jpg")]
    assert {one.action for one in near.values()} == {"check"}


def test_all_but_one_of_equal_images_are_excluded(audited):
    copies = {frozenset((one.image, one.other.split(": ")[1])) for one in found(audited, "exact copy").values()}
    leaks = {frozenset((one.image, one.other.split(": ")[1])) for one in found(audited, "leak").values()}
    cat = "train/cat"
    expected = [("3.png", "3 again.png"), ("4.png", "with alpha.png")]
    pairs = {frozenset(f"{cat}/{name}" for name in pair) for pair in expected}
    assert pairs <= copies | leaks  # a seeded share of train is val
    near = found(audited, "near copy") | found(audited, "near leak")
    assert any({one, other.split(": ")[1]} == {f"{cat}/5.png", f"{cat}/smaller.png"} for one, other in near)


def test_one_image_with_two_classes_must_be_looked_at(audited):
    (finding,) = found(audited, "two classes").values()
    assert finding.action == "check"
    assert {finding.label, finding.suggestion} == {"cat", "flöwer bed"}


def test_the_file_of_fixes_is_honoured_and_the_next_audit_excludes_nothing(messy, audited, tmp_path):
    file = tmp_path / "fixes.csv"
    write_fixes(file, audited.findings)
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert tuple(rows[0]) == COLUMNS
    assert {row["action"] for row in rows} == {"exclude", "check"}
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    data = build("image_folder", root=str(messy), val_fraction=0.1, exclude=str(file))  # reads and checks every file
    excluded = {row["image"] for row in rows if row["action"] == "exclude"}
    assert data.exclusion.counts()["left_out"] == len(excluded)
    again = audit_data(data)
    assert not [one for one in again.findings if one.action == "exclude"]


def test_findings_are_plain_data_in_a_fixed_order(messy, audited):
    plain = audited.plain()
    assert json.loads(json.dumps(plain)) == plain
    again = audit_data(build("image_folder", root=str(messy), val_fraction=0.1, **LOOSE)).plain()
    assert again["findings"] == plain["findings"]
    assert plain["features"] == "16 x 16 pixels"


@pytest.mark.long
def test_changed_labels_of_the_digits_come_first():
    data = build()
    random = np.random.default_rng(3)
    changed = {}
    for index in random.choice(data.counts["train"], 25, replace=False).tolist():
        labels = data.parts["train"].labels
        changed[data.parts["train"].name(index)] = str(labels[index])
        labels[index] = (labels[index] + int(random.integers(1, 10))) % 10
    doubts = [one for one in audit_data(data).findings if one.problem == "wrong label"][:63]  # 5 % of train
    seen = {one.image: one.suggestion for one in doubts if one.image in changed}
    assert len(seen) >= 24
    assert sum(seen[name] == changed[name] for name in seen) >= 22


@pytest.mark.long
def test_a_network_may_compare_and_its_rows_follow_the_images():
    net = tiny("resnet")
    data = build(preprocessing=net.preprocessing.__class__(size=(32, 32)))
    rows = image_features(net, data, "val", [5, 3, 8])
    assert rows.shape == (3, net.channels[-1])
    assert rows.dtype == np.float32
    single = image_features(net, data, "val", [3])[0]
    np.testing.assert_allclose(rows[1], single, atol=1e-5)
    assert not torch.is_grad_enabled() or net.training is False
    audit = audit_data(data, net, features="a tiny resnet")
    assert audit.features == "a tiny resnet"
    assert audit.confirmed is not None


def test_boxes_below_the_stride_are_told_image_by_image(tmp_path):
    write_coco(tmp_path)
    data = load_coco(tmp_path)
    audit = audit_data(data, stride=8)
    small = found(audit, "small object")
    expected = 0
    for images in data.parts.values():
        for i in range(len(images.paths)):
            target = images.target(i, masks=False)
            sides = (target["boxes"][:, 2:] - target["boxes"][:, :2])[~target["crowd"]]
            expected += bool((sides < 8).any())
    assert len(small) == expected > 0
    assert all(one.action == "check" and one.label in ("disc", "box") for one in small.values())
    assert any("classes of objects were not checked" in note for note in audit.notes)
    assert audit.confirmed is None


def test_the_last_image_of_a_class_or_a_part_is_never_to_be_excluded():
    def one(number, part, label):
        return Finding(part, f"{number}", "leak", 1.0, action="exclude", label=label, number=number)

    parts, labels = ["train", "train", "train", "val"], ["cat", "dog", "dog", "cat"]
    everything = [one(number, part, label) for number, (part, label) in enumerate(zip(parts, labels, strict=True))]
    assert [found.action for found in spare_the_last(everything, parts, labels)] == [
        "check", "exclude", "check", "check"
    ]  # fmt: skip


def test_rows_that_were_there_before_and_hostile_names_come_back_from_the_file(tmp_path):
    name = 'a,"b"\r\n;c.png'
    write_fixes(
        tmp_path / "fixes.csv",
        [Finding("train", name, "leak", 1.0, action="exclude")],
        [Fix("old.png", "relabel", "train", "dog"), Fix("kept.png", "keep")],
    )
    found, _ = read_fixes(str(tmp_path / "fixes.csv"))
    assert [(fix.image, fix.action, fix.suggestion) for fix in found] == [
        ("old.png", "relabel", "dog"), ("kept.png", "keep", ""), (name, "exclude", "")
    ]  # fmt: skip
