"""`bbframe data`: the report, the page, the file of fixes, and the run that honours it."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest

from bbframe.app import cli, train
from tests.data.helpers import write, write_coco
from tests.run.helpers import TINY


@pytest.fixture
def bbframe(tmp_path, monkeypatch, capsys):
    """The command in a working directory of its own: its exit code, what it prints, what it complains of."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bbframe", "data", *words])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def photos(tmp_path):
    """A folder of photos with a leak and a broken file."""
    root = tmp_path / "my photos"
    for number, place in enumerate(("train/köter", "train/cat", "test/köter", "test/cat")):
        for i in range(8):
            write(root / place / f"{i} é.png", shade=1000 * number + i)
    shutil.copy(root / "train/cat/1 é.png", root / "test/cat/other.png")
    (root / "train/cat/broken.png").write_bytes(b"no image")
    return root


def test_the_report_the_page_and_the_fixes_of_a_folder(bbframe, photos, tmp_path):
    code, out, err = bbframe("data=image_folder", f"data.root={photos}", "--out", "fixes.csv")
    assert (code, err) == (0, "")
    assert re.search(r"LEAKS +1: train: train/cat/1 é.png = test: test/cat/other.png", out)
    assert re.search(r"unreadable +1: \w+: train/cat/broken.png \(not an image\)", out)
    assert "by 16 x 16 pixels; a network sees more than pixels" in out
    (folder,) = (tmp_path / "outputs" / "data").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_image_folder", folder.name)
    assert out.splitlines()[-1] == f"page: outputs/data/{folder.name}/report.html"
    plain = json.loads((folder / "audit.json").read_text())
    page = (folder / "report.html").read_text()
    assert plain["problems"]["leak"] == 1
    assert "train/cat/1 é.png" in page
    assert page.count("data:image/png;base64") >= 2
    rows = (tmp_path / "fixes.csv").read_text(encoding="utf-8").splitlines()
    assert '"train","train/cat/1 é.png","leak","1.0000","exclude","cat","","test: test/cat/other.png"' in rows
    code, _, err = bbframe("data=image_folder", f"data.root={photos}", "--out=fixes.csv")
    assert code == 1
    assert "is there already, perhaps with your changes" in err


@pytest.mark.long
def test_json_is_plain_data_alone(bbframe):
    code, out, err = bbframe("data=digits", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["summary"]["images"] == {"train": 1259, "val": 269, "test": 269}
    assert found["data"] == "digits"
    assert {finding["problem"] for finding in found["findings"]} == {"wrong label", "outlier"}
    assert found["confirmed_labels"] > 0.95


def test_data_with_boxes_needs_no_task(bbframe, tmp_path):
    write_coco(tmp_path)
    files = [f"data.train_images={tmp_path}/train", f"data.train_annotations={tmp_path}/train.json"]
    code, out, err = bbframe("data=coco", *files, "data.min_size=null")
    assert (code, err) == (0, "")
    assert "The classes of objects were not checked" in out
    assert re.search(r"small objects +\d", out)


@pytest.mark.long
def test_weights_that_are_not_to_be_had_are_named_and_pixels_serve(bbframe, tmp_path):
    words = ["backbone.pretrained=true", f"backbone.checkpoint={tmp_path}/nowhere"]
    code, out, err = bbframe("data=digits", *words)
    assert code == 0
    assert "resnet18: no weights, so images are compared by pixels" in err
    assert len(err.strip().splitlines()) == 1
    assert "by 16 x 16 pixels" in out


@pytest.mark.long
def test_weights_that_load_compare(bbframe, digits_run):
    code, out, err = bbframe(*TINY, "backbone.pretrained=true", f"backbone.checkpoint={digits_run}/backbone")
    assert (code, err) == (0, "")
    assert re.search(r"compared +by convnextv2_atto \(.*backbone\), the mean of stage", out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out"], "expected one argument"),
        (["--out", "fixes.txt"], "--out fixes.txt: must end in .csv, such as --out fixes.csv"),
        (["--out", "no/where.csv"], "there is no folder"),
        (["--dry-run"], "data has no --dry-run"),
        (["data=digit"], "digit"),
        (["data=digits,image_folder"], "give one value of data=digits,image_folder"),
        (["data=image_folder", "data.root=nowhere"], "root='nowhere' does not exist"),
        (["data=digits", "data.exclude=gone.csv"], "gone.csv cannot be read"),
        (["data=coco", "task=classification", "data.train_images=x", "data.train_annotations=y"], "task=detection"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, message, bbframe):
    code, _, err = bbframe(*words)
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.long
def test_a_run_says_what_its_images_are_and_records_what_it_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fixes.csv").write_text("image,action,suggestion\nscan 3,exclude,\nscan 5,relabel,7\n")
    assert train.main([*TINY, "trainer.max_epochs=1", "data.exclude=fixes.csv"]) == 0
    (file,) = tmp_path.rglob("metrics.json")
    metrics = json.loads(file.read_text())
    assert metrics["exclude"]["left_out"] == metrics["exclude"]["relabelled"] == 1
    assert len(metrics["exclude"]["sha256"]) == 64
    assert metrics["data_summary"]["images"]["train"] == 1258
    assert metrics["data_summary"]["leaks"] == {}
    log = (file.parent / "train.log").read_text()
    assert "exclude   fixes.csv: left out 1 image (1 train), relabelled 1 image (1 train)" in log
    assert "copies    no two images are equal, byte by byte" in log
    page = (file.parent / "report.html").read_text()
    assert "leaks between parts" in page
    assert metrics["exclude"]["sha256"] in page
    assert "exclude: fixes.csv" in (file.parent / "config.yaml").read_text()


@pytest.mark.long
def test_a_summary_that_fails_ends_no_run(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError("no such disk")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bbframe.run.results.summarise", fails)
    assert train.main([*TINY, "trainer.max_epochs=1"]) == 0
    (file,) = tmp_path.rglob("metrics.json")
    assert json.loads(file.read_text())["data_summary"] is None
    assert "data: its images could not be summed up: no such disk" in (file.parent / "train.log").read_text()
