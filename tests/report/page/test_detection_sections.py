"""What a page says of a detection run: the gallery, errors, sizes and curves, against counting by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bbframe.report.detection_errors import KINDS, OUTCOMES, detection_errors
from bbframe.report.page.detection_gallery import errors_per_image, gallery
from bbframe.report.page.detection_sections import detection_sections, sections_of_images
from bbframe.report.page.finished_run import FinishedRun
from bbframe.report.page.html_page import page_text
from bbframe.tasks.detection_matches import SIZES
from tests.data.helpers import build
from tests.report.page.made_detections import made_detections

SCENES = {"train_scenes": 10, "val_scenes": 10, "test_scenes": 24}


@pytest.fixture(scope="module")
def data():
    return build("digit_scenes", **SCENES)


@pytest.fixture(scope="module")
def rows(data):
    return made_detections(data)


@pytest.fixture(scope="module")
def errors(rows):
    return detection_errors([row[1:] for row in rows], 10)


def counted(images, least):
    """The outcomes of the gallery's images at a score in thousandths, as the script of the page counts them."""
    counts = dict.fromkeys((*OUTCOMES[:-1], "missed"), 0)
    for image in images:
        found = [one for one in image["found"] if one["score"] >= least]
        for one in found:
            counts[OUTCOMES[one["outcome"]]] += 1
        shown = {
            one.get("shows") for one in found if OUTCOMES[one["outcome"]] in ("right", "wrong class", "badly placed")
        }
        counts["missed"] += sum(i not in shown and not one.get("crowd") for i, one in enumerate(image["truth"]))
    return counts


def test_the_gallery_counts_at_every_score_what_the_errors_count(data, rows, errors):
    shown = gallery(rows, errors, data)
    assert len(shown["images"]) == 24
    for percent in (5, 30, 50, 77):
        assert counted(shown["images"], 10 * percent) == errors.counts(percent / 100)
    assert [one["name"] for one in shown["outcomes"]] == [*OUTCOMES[:-1], "missed"]
    assert min(one["score"] for image in shown["images"] for one in image["found"]) >= shown["least"]


def test_the_images_with_the_most_errors_come_first_and_the_others_are_left_out(data, rows, errors):
    start = errors.best_threshold()
    counts = errors_per_image(errors, len(rows), start)
    found = gallery(rows, errors, data)
    shown = found["images"]
    assert found["start"] == round(1000 * start)
    there = [sum(counted([image], found["start"])[kind] for kind in KINDS) for image in shown]
    assert there == sorted(counts, reverse=True)
    assert there[0] > there[-1]
    few = gallery(rows, errors, data, most_bytes=20_000)["images"]
    assert 1 <= len(few) < 24
    assert [image["name"] for image in few] == [image["name"] for image in shown[: len(few)]]
    assert len(json.dumps(few)) <= 20_000


def test_an_image_that_is_gone_leaves_its_boxes_and_the_reason(data, rows, errors, monkeypatch):
    def read(index):
        raise ValueError(f"scene {index} is gone")

    monkeypatch.setattr(data.parts["test"], "read", read)
    shown = gallery(rows, errors, data)["images"]
    assert {image["why"].split()[-1] for image in shown} == {"gone"}
    assert all("photo" not in image and image["width"] == image["height"] == 96 for image in shown)


def test_masks_have_outlines_and_sections_of_their_own(monkeypatch):
    data = build("digit_scenes", masks=True, **SCENES | {"test_scenes": 4})
    sections = sections_of_images(made_detections(data), data)
    headings = [section.heading for section in sections if section.heading]
    assert headings == [
        "Images", "Errors", "Sizes", "Precision and recall", "Mask errors", "Mask sizes", "Mask precision and recall",
    ]  # fmt: skip
    shown = sections[0].data
    assert shown["masks"]
    assert all(len(one["outline"][0]) >= 6 for image in shown["images"] for one in image["truth"])


def test_tables_hold_what_was_counted(data, rows, errors):
    sections = {section.heading: section for section in sections_of_images(rows, data)}
    images, table, sizes = (sections[name].data for name in ("Images", "", "Sizes"))
    assert len(images["images"]) == len(rows)
    objects = sum(len(row.truth.labels) for row in rows)
    # the last table without a heading is the one of classes
    assert sum(row[1] for row in table["rows"]) == objects
    titles = [column["title"] for column in table["columns"]]
    for kind in ("wrong class", "badly placed", "both", "duplicate", "background", "missed"):
        assert sum(row[titles.index(kind)] for row in table["rows"]) == errors.counts(errors.best_threshold())[kind]
    small = sum(int((row.truth.area <= SIZES["small"][1]).sum()) for row in rows)
    assert [row[1] for row in sizes["rows"]] == [small, objects - small, 0]
    assert sizes["rows"][2][3:] == [None, None]
    assert sum(row[2] for row in sizes["rows"]) == int((errors.found >= 0).sum())


def test_the_error_section_has_counts_and_gains(data, rows, errors):
    sections = sections_of_images(rows, data)
    chart, table = (section.data for section in sections[1:3])
    gains = errors.gains()
    assert [row[0] for row in table["rows"]] == ["right", *KINDS]
    assert [row[1] for row in table["rows"]] == list(errors.counts(errors.best_threshold()).values())
    assert [row[2] for row in table["rows"]] == list(errors.counts().values())
    assert table["rows"][0][3] is None
    assert [row[3]["sort"] for row in table["rows"][1:]] == [*gains.values()]
    points = dict(chart["charts"][0]["series"][0]["points"])
    assert points == {kind: round(gain, 4) for kind, gain in gains.items()}
    assert [*points.values()] == sorted(points.values(), reverse=True)


@pytest.mark.parametrize("classes", [10, 30])
def test_curves_are_those_of_every_class_or_of_the_best_and_the_worst(data, rows, classes, monkeypatch):
    draw = np.random.default_rng(0)
    if classes > 10:
        monkeypatch.setattr(data, "class_names", [f"class {k}" for k in range(classes)])
        monkeypatch.setattr(data, "num_classes", classes)
        more = []
        for row in rows:
            shift = draw.integers(0, 3) * 10
            found, truth = (part._replace(labels=part.labels + shift) for part in row[1:])
            more.append(row._replace(found=found, truth=truth))
        rows = more
    section = next(s for s in sections_of_images(rows, data) if s.heading == "Precision and recall")
    series = section.data["charts"][0]["series"]
    assert len(series) == min(classes, 12) + 1
    assert series[-1]["name"].startswith("mean (")
    assert ("best and the 6 worst" in section.note) == (classes > 12)
    areas = [float(line["name"].rpartition("(")[2].rstrip(")")) for line in series[:-1]]
    assert areas == sorted(areas, reverse=True)
    assert all(0 <= y <= 1 and len(line["points"]) == 21 for line in series for _, y in line["points"])


def test_without_objects_there_are_no_curves(data, rows):
    empty = [row._replace(truth=row.truth._replace(crowd=np.ones_like(row.truth.crowd))) for row in rows[:4]]
    headings = [section.heading for section in sections_of_images(empty, data)]
    assert headings == ["Images", "Errors", "Sizes"]


def test_a_run_without_a_test_has_no_sections_and_one_without_its_data_says_so(tmp_path):
    run = FinishedRun(tmp_path)
    assert detection_sections(run, None, None, "no data") == []
    row = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 0.5}
    (tmp_path / "predictions.json").write_text(json.dumps([row] * 1200))
    (section,) = detection_sections(run, None, None, "the images are not at hand: data: no such folder")
    assert section.data == {"facts": [["detections", "1,200, in predictions.json"]]}
    assert section.note == "the images are not at hand: data: no such folder"


def test_hostile_names_stay_text(data, rows, monkeypatch):
    hostile = "</script><script>window.broken = 1</script>'\"&\u202e"
    monkeypatch.setattr(data, "class_names", [f"{hostile}{k}" for k in range(10)])
    monkeypatch.setattr(data, "source", lambda part, index: f"{hostile}{index}.png")
    text = page_text("run", sections_of_images(rows, data))
    assert "<script>window.broken" not in text
    assert text.count("window.broken") > 30
    assert "\u202e" not in text
    assert isinstance(data.parts["test"].read(0), Image.Image)
