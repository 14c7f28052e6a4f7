"""A classification's sections: which images are shown, with what, and what is said of those that are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bbframe.app.composition import composition, plain_data
from bbframe.files import visible
from bbframe.report.page import classification_sections as sections
from bbframe.report.page.classification_sections import (
    calibration_sections,
    chosen_images,
    class_names,
    class_section,
    confusion_section,
    image_section,
)
from bbframe.report.page.finished_run import ScoredImage, read_predictions, read_run
from bbframe.report.page.html_page import MOST_BYTES, page_text
from bbframe.run.configuration import parse_configuration
from tests.report.page.run_folders import answers_to, photo_data, run_folder, write_photos

CLASSES = ["cat", "dog\u202e", "gnu"]


def scored(label, predicted, loss):
    return ScoredImage(f"{label}{predicted}{loss}", label, predicted, 0.5, math.exp(-loss), loss)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "root"
    write_photos(root, CLASSES, each=14)
    return photo_data(root, test_fraction=0.5)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    names, rows = answers_to(data)
    return read_run(run_folder(tmp_path_factory.mktemp("run") / "run", names, CLASSES, rows))


@pytest.fixture(scope="module")
def rows(run):
    return read_predictions(run.folder / "predictions.csv", class_names(run, None))


@pytest.fixture(scope="module")
def task(data):

    small = ["backbone=resnet18", "backbone.embedding_size=8", "backbone.hidden_sizes=[8,8,8,8]", "data=image_folder"]
    with composition() as compose:
        plan = parse_configuration(plain_data(compose, [*small, "data.root=nowhere"]))
    return plan.make_task(plan.make_backbone(None), data.class_names)


def test_all_wrong_images_come_first_then_right_ones_of_every_loss():
    rows = [scored(0, 0, 0.01 * i) for i in range(50)] + [scored(0, 1, 1 + i) for i in range(5)]
    chosen = chosen_images(rows, 15)
    assert chosen[:5] == [54, 53, 52, 51, 50]
    right = [rows[i].loss for i in chosen[5:]]
    assert len(right) == 10
    assert right == sorted(right, reverse=True)
    assert (right[0], right[-1]) == (0.49, 0)
    assert np.diff(right).min() > -0.07
    assert chosen_images(rows, 3) == [54, 53, 52]
    assert sorted(chosen_images(rows, 100)) == list(range(55))


def test_the_photo_is_the_file_and_the_worst_come_first(run, rows, data):
    content = image_section(run, CLASSES, rows, chosen_images(rows, 99), data, None, "").data
    assert len(content["images"]) == len(rows) == content["total"]
    wrong = [image["facts"][0] != image["facts"][1] for image in content["images"]]
    assert wrong == sorted(wrong, reverse=True)
    losses = [image["facts"][4] for image in content["images"] if image["facts"][0] != image["facts"][1]]
    assert losses == sorted(losses, reverse=True)
    by_name = {row.name: row for row in rows}
    for image in content["images"]:
        row = by_name[image["name"]]
        assert image["facts"][:2] == [row.label, row.predicted]
        assert image["facts"][3] == pytest.approx(row.true_probability, abs=1e-5)
        index = next(i for i in range(len(rows)) if visible(data.source("test", i)) == row.name)
        assert tuple(image["size"]) == data.parts["test"].read(index).size  # not the 32 x 32 of the network
        assert image["photo"].startswith("data:image/webp;base64,")
        assert "heat" not in image


def test_the_worst_show_where_the_network_looked(run, rows, data, task, monkeypatch):
    monkeypatch.setattr(sections, "EXPLAINED", 5)
    monkeypatch.setattr(sections, "BATCH_PIXELS", 2 * 32 * 32)
    found = image_section(run, CLASSES, rows, chosen_images(rows, 99), data, task, "")
    assert found.data["stage"] == "stage2"  # 4 cells a side of 32 pixels; the selected stage4 has one
    heats = [image.get("heat") for image in sorted(found.data["images"], key=lambda image: -image["facts"][4])]
    assert [heat is not None for heat in heats] == [True] * 5 + [False] * (len(rows) - 5)
    assert np.shape(heats[0]["cells"]) == (4, 4)
    assert max(map(max, heats[0]["cells"])) in (0, 255)
    assert all(0 <= side <= 1 for side in heats[0]["box"])
    assert "Grad-CAM on stage2" in found.note


def test_missing_images_are_named_and_the_reason_is_said(run, rows):
    found = image_section(run, CLASSES, rows, chosen_images(rows, 99), None, None, "There are no photos: gone.")
    assert found.note.endswith("There are no photos: gone.")
    assert len(found.data["images"]) == len(rows)
    assert all(image["photo"] is None and image["name"] for image in found.data["images"])


def test_an_image_that_has_left_the_data_set_is_said_to_be_gone(run, rows, data):
    renamed = [row._replace(name="gone.png") if i == 0 else row for i, row in enumerate(rows)]
    found = image_section(run, CLASSES, renamed, chosen_images(rows, 99), data, None, "")
    gone = [image for image in found.data["images"] if image["photo"] is None]
    assert [(image["name"], image["why"]) for image in gone] == [("gone.png", sections.GONE)]
    assert len(found.data["images"]) == len(rows)


def test_the_page_says_how_many_images_it_shows(run, rows, data, monkeypatch):
    monkeypatch.setattr(sections, "MOST_PHOTO_BYTES", 20_000)
    found = image_section(run, CLASSES, rows, chosen_images(rows, 99), data, None, "")
    there = found.data["images"]
    assert 0 < len(there) < len(rows)
    assert sum(len(image["photo"]) for image in there) <= 20_000
    wrong = sum(row.label != row.predicted for row in rows)
    kept = sum(image["facts"][0] != image["facts"][1] for image in there)
    assert found.note.startswith(f"{len(there)} of {len(rows)} tested images are in this page; {wrong} were wrong, ")
    assert (f"{kept} of them are here" in found.note) == (kept < wrong)


def test_the_matrix_counts_every_tested_image(rows):
    cells = confusion_section(CLASSES, rows).data["cells"]
    assert sum(count for *_, count in cells) == len(rows)
    assert sum(count for label, predicted, count in cells if label == predicted) == sum(
        row.label == row.predicted for row in rows
    )


def test_a_class_has_its_images_in_every_part_and_what_it_is_taken_for(run, rows, data):
    table = class_section(run, CLASSES, rows, data).data
    titles = [column["title"] for column in table["columns"]]
    cat = dict(zip(titles, next(row for row in table["rows"] if row[0] == "cat"), strict=True))
    assert cat["train images"] + cat["val images"] + cat["test images"] == 14
    assert cat["tested"] == cat["test images"]
    own = [row for row in rows if row.label == 0]
    assert cat["recall"]["sort"] == sum(row.predicted == 0 for row in own) / len(own)
    wrong = sum(row.predicted != 0 for row in own)
    assert cat["most often taken for"]["text"] == f"dog\u202e ({wrong})"


def test_calibration_draws_every_image_once(run, rows):
    figures, charts = calibration_sections(run, rows)
    assert [figure["value"] for figure in figures.data["figures"]] == ["0.1200", "1.7000"]
    reliability, sureness = charts.data["charts"]
    assert sum(count for _, count in sureness["series"][0]["points"]) == len(rows)
    assert all(0 <= value <= 1 for point in reliability["series"][0]["points"] for value in point)
    del run.metrics["calibration"]
    assert [section.template for section in calibration_sections(run, rows)] == ["chart"]


def test_a_thousand_classes_and_fifty_thousand_images_fit_into_a_page(tmp_path):
    """Without photos, whose room is limited apart from that."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(1000, (50_000, 2), generator=generator).tolist()
    names = [f"a long name of a class with the number {i}" for i in range(1000)]
    rows = [ScoredImage(f"{i}.jpg", *pair, 0.5, 0.1, 2.3) for i, pair in enumerate(pairs)]
    run = read_run(run_folder(tmp_path / "run", ["a"], names, [(0, 0, 0, 0.9, 0.9)]))
    chosen = chosen_images(rows, sections.MOST_IMAGES)
    parts = [confusion_section(names, rows), class_section(run, names, rows, None)]
    parts.append(image_section(run, names, rows, chosen, None, None, "gone"))
    assert len(page_text("A page", parts)) < MOST_BYTES - sections.MOST_PHOTO_BYTES
