"""`bbframe report`: the page of an old run, with what is still there, and a reason for what is gone."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from bbframe.app import cli
from bbframe.app.report_command import make_page, reopen
from bbframe.report.page.run_page import PAGE


@pytest.fixture
def run(digits_run, tmp_path):
    """A copy of a run, without its page."""
    folder = shutil.copytree(digits_run, tmp_path / "run")
    (folder / PAGE).unlink()
    return folder


def gallery(folder):
    """The data and the note of the page's images."""
    text = (folder / PAGE).read_text()
    part = re.search(
        r'<div class="block kind-gallery".*?<p class="note" dir="auto">(.*?)</p>.*?json">(.*?)</script>', text, re.S
    )
    return json.loads(part[2]), part[1]


def test_the_page_of_a_run_is_made_again_as_it_was(run, digits_run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bbframe", "report", str(run)])
    assert cli.main() == 0
    assert capsys.readouterr().out.strip() == str(run / PAGE)
    (first, note), (again, same) = gallery(digits_run), gallery(run)
    assert note == same
    heats = (
        [image.pop("heat", None) for image in first["images"]],
        [image.pop("heat", None) for image in again["images"]],
    )
    assert first == again
    assert [heat is None for heat in heats[0]] == [heat is None for heat in heats[1]]
    assert sum(heat is not None for heat in heats[0]) == 24
    assert first["total"] == 269


def test_without_a_checkpoint_there_are_photos_and_no_heat(run):
    shutil.rmtree(run / "checkpoints")
    make_page(run)
    content, note = gallery(run)
    assert note.endswith("There are no heat maps, because the run left no checkpoint.")
    assert all(image["photo"] and "heat" not in image for image in content["images"])


def test_without_its_data_the_images_are_named(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("name: digits", "name: image_folder\n  root: gone"))
    found = reopen(run)
    assert found.data is None
    assert found.missing.startswith("There are no photos: ")
    make_page(run)
    content, note = gallery(run)
    assert "There are no photos: " in note
    assert all(image["photo"] is None and image["name"].startswith("scan") for image in content["images"])


def test_a_damaged_checkpoint_costs_the_heat_alone(run):
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    found = reopen(run)
    assert found.network is None
    assert found.data is not None
    assert "There are no heat maps: checkpoint" in found.missing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report: name the folder of a run, a sweep or a ranking, such as outputs/classification/<run>"),
        (["nowhere"], "there is no 'nowhere' in"),
        (["--plugin"], "expected one argument"),
        (["."], "not a run folder, it holds no config.yaml"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bbframe", "report", *words])
    assert cli.main() == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
