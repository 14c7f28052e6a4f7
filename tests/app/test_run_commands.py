"""`bbframe runs` and `bbframe compare` on made run folders: filters, order, columns, formats, and what is refused."""

import csv
import json
import os
import sys

import pytest

from bbframe.app import cli
from tests.sweep.run_folders import run_folder, summary


@pytest.fixture
def bbframe(tmp_path, monkeypatch, capsys):
    """The command beside a folder "outputs": its exit code, what it prints, what it complains of."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bbframe", *words])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out.rstrip(), said.err.rstrip()

    return run


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "outputs"
    for name, (backbone, accuracy, lr) in {"a": ("resnet18", 0.9, 0.1), "b": ("resnet50", 0.95, 1e-3)}.items():
        content = summary(backbone, accuracy, tags=["final", name], maps={})
        run_folder(folder, name, content, config={"optim": {"lr": lr}, "data": {"root": None}})
    run_folder(folder / "sweep", "0_swin", "no memory " + 200 * "x", ["backbone=swin"])
    return folder


def names(out):
    """The folders of a printed table."""
    return [line.split()[0] for line in out.splitlines()[2:-2]]


def test_the_table_shows_every_run_with_the_value_of_its_metric(bbframe, outputs):
    code, out, err = bbframe("runs")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == (
        ["folder", "status", "task", "data", "backbone", "seed", "epochs", "metric", "val", "test", "seconds", "error"]
    )
    assert lines[2].split()[:5] == ["a", "ok", "classification", "digits", "resnet18"]
    assert lines[2].split()[-4:] == ["accuracy", "0.9100", "0.9000", "12.0000"]
    assert lines[4].startswith(f"{os.path.join('sweep', '0_swin')}  failed")
    assert lines[4].endswith("xxx...")
    assert max(map(len, lines)) < 250
    assert lines[-1] == "3 runs: 2 ok, 1 failed"


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["backbone=resnet18"], ["a"]),
        (["backbone=resnet*"], ["a", "b"]),
        (["backbone!=resnet18", "status=ok"], ["b"]),
        (["test.accuracy>0.9"], ["b"]),
        (["test.accuracy>=0.9", "test.accuracy < 0.95"], ["a"]),
        (["test<=0.9"], ["a"]),
        (["optim.lr=0.001"], ["b"]),
        (["optim.lr=1e-3"], ["b"]),
        (["tags=b"], ["b"]),
        (["image_size=[32,32]"], ["a", "b"]),
        (["data.root=null", "status=ok"], ["a", "b"]),
        (["status=failed"], ["sweep/0_swin"]),
        (["error=no memory*"], ["sweep/0_swin"]),
        (["test.accuracy>0.99"], []),
    ],
)
def test_conditions_choose_runs(bbframe, outputs, conditions, found):
    code, out, err = bbframe("runs", "outputs", "--where", *conditions)
    assert (code, err) == (0, "")
    assert names(out) == found


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--sort", "test.accuracy"], ["a", "b", "sweep/0_swin"]),
        (["--sort", "-test.accuracy"], ["b", "a", "sweep/0_swin"]),
        (["--sort=-test.accuracy"], ["b", "a", "sweep/0_swin"]),
        (["--sort", "-test.accuracy", "--reverse"], ["a", "b", "sweep/0_swin"]),
        (["--sort", "status,-backbone"], ["sweep/0_swin", "b", "a"]),
        (["--reverse"], ["sweep/0_swin", "b", "a"]),
        (["--sort", "optim.lr"], ["b", "a", "sweep/0_swin"]),
    ],
)
def test_runs_without_the_value_come_last_in_either_direction(bbframe, outputs, flags, found):
    assert names(bbframe("runs", "outputs", *flags)[1]) == found


def test_columns_json_and_csv(bbframe, outputs):
    chosen = ["runs", "--where", "status=ok", "--columns", "folder", "optim.lr", "test.accuracy"]
    head, _, *lines = bbframe(*chosen)[1].splitlines()
    assert head.split() == ["folder", "optim.lr", "test.accuracy"]
    assert lines[:2] == ["a         0.1000         0.9000", "b         0.0010         0.9500"]
    assert json.loads(bbframe(*chosen, "--json")[1]) == [
        {"folder": "a", "optim.lr": 0.1, "test.accuracy": 0.9},
        {"folder": "b", "optim.lr": 0.001, "test.accuracy": 0.95},
    ]
    assert bbframe(*chosen, "--csv")[1].splitlines() == ["folder,optim.lr,test.accuracy", "a,0.1,0.9", "b,0.001,0.95"]
    everything = json.loads(bbframe("runs", "--json")[1])
    table = list(csv.DictReader(bbframe("runs", "--csv")[1].splitlines()))
    assert [run["folder"] for run in everything] == [row["folder"] for row in table] == ["a", "b", "sweep/0_swin"]
    assert table[0]["image_size"] == "[32,32]"
    assert everything[0]["test.f1"] == 0.45


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "nowhere"], "nowhere: no such folder; give one with runs below it, such as outputs"),
        (
            ["runs", "--where", "acuracy"],
            "--where 'acuracy' is no comparison; write key=value, key!=value, or key>number",
        ),
        (["runs", "--where", "test.acuracy>0.5"], "has 'test.acuracy'; did you mean 'test.accuracy'?"),
        (["runs", "--where", "backbone>resnet"], "> needs a number behind it, not 'resnet'"),
        (["runs", "--sort", "backbon"], "has 'backbon'; did you mean 'backbone'?"),
        (["runs", "--columns", "optim.rl"], "has 'optim.rl'; did you mean 'optim.lr'?"),
        (["runs", "--json", "--csv"], "give one of --json and --csv"),
        (["runs", "--jason"], "unknown argument '--jason'; bbframe runs --help shows what there is"),
        (["compare", "outputs/a"], "compare takes two runs or more: bbframe compare <run folder> <run folder>"),
        (["compare", "outputs/a", "outputs"], "outputs: no run folder"),
        (["compare", "outputs/a", "outputs/a"], "compare a run with another one, not with itself"),
        (["compare", "outputs/a", "outputs/b", "--images", "-1"], "--images"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(bbframe, outputs, words, said):
    code, out, err = bbframe(*words)
    assert (code, out) == (1, "")
    assert said in err
    assert "\n" not in err


def test_a_folder_without_runs_is_said_to_have_none(bbframe, tmp_path):
    (tmp_path / "outputs").mkdir()
    assert bbframe("runs")[2] == ("error: outputs: no run lies below it; a run folder holds metrics.json or error.txt")


def test_compare_prints_text_and_plain_data(bbframe, outputs):
    code, out, err = bbframe("compare", "outputs/a", "outputs/b")
    assert (code, err) == (0, "")
    assert "A  outputs/a" in out
    assert json.loads(bbframe("compare", "outputs/a", "outputs/b", "--json")[1])["configuration"] == {
        "optim.lr": [0.1, 0.001]
    }


@pytest.mark.parametrize("command", ["runs", "compare"])
def test_the_help_says_what_there_is(bbframe, command):
    code, out, _ = bbframe(command, "--help")
    assert code == 0
    assert f"usage: bbframe {command}" in out
    assert command in bbframe("--help")[1]


def test_report_makes_the_page_of_a_folder_of_runs_again(bbframe, outputs):
    page = outputs / "report.html"
    assert bbframe("report", "outputs") == (0, "outputs/report.html", "")
    assert "resnet50" in page.read_text()
    assert "no memory" in bbframe("report", "outputs/sweep")[2] + (outputs / "sweep" / "report.html").read_text()
