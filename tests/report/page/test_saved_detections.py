"""Detections come back from predictions.json; data that have changed since are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bbframe.report.coco_results import coco_results
from bbframe.report.page.detection_sections import detection_sections
from bbframe.report.page.finished_run import FinishedRun
from bbframe.report.page.saved_detections import find_tested_images, read_detections, read_results
from bbframe.tasks.average_precision import average_precision
from bbframe.tasks.detection_matches import match_images
from tests.data.helpers import build
from tests.report.page.made_detections import made_detections

SCENES = {"train_scenes": 10, "val_scenes": 10, "test_scenes": 12}


def saved(folder, data, rows, **metrics):
    results = [
        {**row, "image": data.source("test", index)}
        for index, found, _ in rows
        for row in coco_results(data.image_id("test", index), *found, data.part_category_ids("test"))
    ]
    (folder / "predictions.json").write_text(json.dumps(results))
    return FinishedRun(folder, metrics={"test_part": "test", **metrics})


@pytest.mark.parametrize("masks", [False, True])
def test_what_was_found_comes_back(tmp_path, masks):
    data = build("digit_scenes", masks=masks, **SCENES)
    rows = made_detections(data)
    known = {"test_images": 12, "test_sha256": data.fingerprint("test", range(12))}
    for metrics in (known, {}):  # an older version did not write them
        run = saved(tmp_path, data, rows, **metrics)
        again = read_detections(run, data, find_tested_images(run, data))
        assert [row.image for row in again] == list(range(12))
        for one, other in zip(again, rows, strict=True):
            np.testing.assert_allclose(one.found.boxes, other.found.boxes, atol=0.011)
            np.testing.assert_allclose(one.found.scores, other.found.scores, atol=1e-5)
            assert one.found.labels.tolist() == other.found.labels.tolist()
            assert one.found.masks == (other.found.masks if len(one.found.labels) else None)
            assert one.truth.boxes.tolist() == other.truth.boxes.tolist()
            assert one.truth.masks == other.truth.masks
    scores = [
        np.nanmean(average_precision(match_images([row[1:] for row in some], 10, masks=masks)))
        for some in (rows, again)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_a_test_of_some_images_leaves_the_others_out(tmp_path):
    data = build("digit_scenes", **SCENES)
    run = saved(
        tmp_path, data, made_detections(data)[:5], test_images=5, test_sha256=data.fingerprint("test", range(5))
    )
    assert find_tested_images(run, data) == range(5)
    assert len(read_detections(run, data, range(5))) == 5


def test_other_data_are_noticed(tmp_path):
    data = build("digit_scenes", **SCENES)
    rows = made_detections(data)
    run = saved(tmp_path, data, rows, test_images=12, test_sha256=data.fingerprint("test", range(12)))
    assert find_tested_images(run, data) == range(12)
    for other in ({"scene_seed": 3}, {"test_scenes": 11}):
        changed = build("digit_scenes", **SCENES | other)
        assert find_tested_images(run, changed) is None
        (section,) = detection_sections(run, changed, None, "")
        assert section.note == "The images or their objects have changed since they were tested."
    assert detection_sections(run, data, None, "")[0].template == "detections"
    assert find_tested_images(FinishedRun(tmp_path, metrics={"test_part": "val"}), data) is None
    assert find_tested_images(FinishedRun(tmp_path), data) == range(12)


@pytest.mark.parametrize(("key", "value"), [("image_id", 99), ("category_id", 10)])
def test_an_image_or_a_class_that_the_data_lack_is_named(tmp_path, key, value):
    data = build("digit_scenes", **SCENES)
    row = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 0.5}
    (tmp_path / "predictions.json").write_text(json.dumps([row | {key: value}]))
    with pytest.raises(ValueError, match=f"{key}={value} is none of the test data; give the data of the run"):
        read_detections(FinishedRun(tmp_path), data, range(12))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read as JSON"),
        ("{}", "must hold a list of detections, each with bbox, category_id, image_id, score"),
        ('[{"bbox": []}]', "must hold a list of detections"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, text, told):
    file = tmp_path / "predictions.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        read_results(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
