"""The console command: the catalog, what one backbone costs, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bbframe.app import catalog, cli, train
from bbframe.app.places import HOME
from tests.tiny import example, names, tiny

ROOT = HOME
CHOICES = sorted(path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml"))


@pytest.fixture
def bbframe(tmp_path, monkeypatch, capsys):
    """The command in a working directory of its own: its exit code, what it prints, what it complains of."""
    monkeypatch.chdir(tmp_path)

    def run(line):
        monkeypatch.setattr(sys, "argv", ["bbframe", *line.split()])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out.rstrip(), said.err.rstrip()

    return run


@pytest.fixture
def mine(tmp_path):
    """A folder of one's own backbones."""
    folder = tmp_path / "mine" / "backbone"
    folder.mkdir(parents=True)
    (folder / "own_small.yaml").write_text("defaults: [resnet18, _self_]\ndepths: [1, 1, 1, 1]\n")
    return folder


# bbframe list


@pytest.mark.long
def test_the_catalog_has_every_choice_with_the_parameters_that_its_file_says(bbframe):
    code, out, err = bbframe("list --json")
    assert (code, err) == (0, "")
    lines = {line["backbone"]: line for line in json.loads(out)}
    assert list(lines) == CHOICES
    assert lines.pop("timm")["stages"] == []
    for choice, line in lines.items():
        text = (ROOT / "conf" / "backbone" / f"{choice}.yaml").read_text()
        said = float(re.search(r"([\d.]+) M parameters", text)[1])
        assert line["parameters"] / 1e6 == pytest.approx(said, abs=0.06), choice
        assert {stage["channels"] > 0 < stage["stride"] for stage in line["stages"]} == {True}


def test_the_table_is_aligned_and_says_what_the_json_says(bbframe):
    lines = json.loads(bbframe("list resnet18 --json")[1])
    head, rule, *rows = bbframe("list resnet18")[1].splitlines()
    assert re.split(r"  +", head) == ["backbone", "params (M)", "stages", "channels", "strides", "Hub id", "timm name"]
    assert set(rule) == {"-"}
    assert [line["backbone"] for line in lines] == ["resnet18"]
    cells = re.split(r"  +", rows[0])
    assert cells[1:5] == ["11.18", "stem..stage4", "64 64 128 256 512", "4 4 8 16 32"]
    assert cells[5:] == [lines[0]["checkpoint"], lines[0]["timm_name"]] == ["microsoft/resnet-18", "resnet18.a1_in1k"]
    table = catalog.listing([*lines, {**lines[0], "backbone": "a_very_long_name_of_a_variant"}])
    assert len({line.find("stem..stage4") for line in table.splitlines()[2:]}) == 1


def test_equal_stages_are_written_once(bbframe):
    row = next(row for row in bbframe("list dinov2_small")[1].splitlines() if row.startswith("dinov2_small"))
    assert re.split(r"  +", row)[2:5] == ["stem..stage12", "384 x13", "14 x13"]


def test_a_part_of_a_name_chooses(bbframe):
    assert [line["backbone"] for line in json.loads(bbframe("list --json Net1")[1])] == [
        name for name in CHOICES if "net1" in name
    ]


def test_ones_own_files_are_in_the_catalog(bbframe, mine):
    (own,) = json.loads(bbframe("list --config-dir mine --json own_")[1])
    assert own["backbone"] == "own_small"
    assert own["parameters"] < 11_176_512
    assert own["checkpoint"] == "microsoft/resnet-18"


BAD = {
    "broken": ("depths: [1, 1\n", "line 2"),
    "typo": ("defaults: [resnet18, _self_]\ndepts: [1]\n", "resnet: unknown option 'depts'; did you mean 'depths'?"),
    "lost": ("defaults: [resnet8, _self_]\n", "backbone=resnet8: the group 'backbone' has no such file; did you mean"),
    "alist": ("- a\n- b\n", "must be a mapping"),
    "nothing": ("", "no backbone ''"),
    "round": ("defaults: [own_round, _self_]\n", "lead back to itself"),
    "wrong": ("defaults: [resnet18, _self_]\ndepths: [1, 1]\n", "resnet: depths=[1, 1]"),
    "open": ("model_type: resnet\ndepths: ${nowhere}\n", "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it_and_the_others_are_listed(name, bbframe, mine):
    text, said = BAD[name]
    (mine / f"own_{name}.yaml").write_text(text)
    code, out, err = bbframe("list --json --config-dir mine own_")
    assert code == 1
    assert err.startswith(f"error: {Path('mine', 'backbone', f'own_{name}.yaml')}: ")
    assert said in err
    assert "\n" not in err
    assert [line["backbone"] for line in json.loads(out)] == ["own_small"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_for_training_and_info_too(name, bbframe, mine, capsys):
    text, said = BAD[name]
    (mine / f"own_{name}.yaml").write_text(text)
    line = f"--config-dir mine backbone=own_{name}"
    code, out, err = bbframe(f"info {line}")
    assert (code, out) == (1, "")
    assert said in err
    assert "\n" not in err
    assert train.main(line.split()) == 1
    assert capsys.readouterr().err.rstrip() == err


# bbframe info


@pytest.mark.long
def test_info_says_what_each_stage_gives_and_costs(bbframe):
    code, out, err = bbframe("info backbone=resnet18 backbone.out_indices=[1,3] data.image_size=[64,96]")
    assert (code, err) == (0, "")
    head, table, costs = (part.splitlines() for part in out.split("\n\n"))
    said = dict(re.split(r"  +", line) for line in head)
    assert said["checkpoint"] == "microsoft/resnet-18"
    assert said["timm name"] == "resnet18.a1_in1k"
    assert said["image"].startswith("3 x 64 x 96")
    rows = [re.split(r"  +", line) for line in table[2:]]
    assert [row[:6] for row in rows[:5]] == [
        ["stem", "-", "yes", "64", "4", "64 x 16 x 24"],
        ["stage1", "yes", "yes", "64", "4", "64 x 16 x 24"],
        ["stage2", "-", "yes", "128", "8", "128 x 8 x 12"],
        ["stage3", "yes", "yes", "256", "16", "256 x 4 x 6"],
        ["stage4", "-", "-", "512", "32", "-"],
    ]
    parameters, macs = ([float(row[i]) for row in rows[:4]] for i in (6, 7))
    assert rows[-1][0] == "total"
    assert [float(x) for x in rows[-1][1:]] == pytest.approx([sum(parameters), sum(macs)], abs=0.003)
    assert float(rows[3][8]) == pytest.approx(sum(macs), abs=0.003)
    assert [line.split("  ")[0] for line in costs] == ["peak memory", "latency", "measured"]


@pytest.mark.long
def test_info_as_data_and_the_size_that_a_run_would_have(bbframe):
    facts = json.loads(bbframe("info backbone=resnet18 backbone.num_channels=1 --json")[1])
    assert facts["image"] == [1, 32, 32]
    assert facts["stages"][-1]["map"] == [512, 1, 1]
    assert facts["gmacs"] == pytest.approx(facts["stages"][-1]["cumulative_gmacs"])
    assert facts["peak_memory_bytes"] > facts["weights_bytes"] >= 4 * facts["parameters"]
    assert facts["latency_range"][0] <= facts["latency_seconds"] <= facts["latency_range"][1]
    if not torch.cuda.is_available():
        assert (facts["device"], facts["threads"]) == ("cpu", torch.get_num_threads())


@pytest.mark.long
def test_info_of_an_image_smaller_than_a_cell(bbframe):
    facts = json.loads(bbframe("info --json backbone=dinov2_small data.image_size=[5,30]")[1])
    assert facts["image"] == [3, 5, 30]
    assert [stage["map"] for stage in facts["stages"]] == [[384, 1, 2]] * 13


@pytest.mark.long
def test_info_selects_the_maps_that_the_detector_will(bbframe):
    facts = json.loads(bbframe("info --json task=detection backbone=resnet18 head=mask_rcnn")[1])
    assert [stage["name"] for stage in facts["stages"] if stage["selected"]] == [
        "stage1",
        "stage2",
        "stage3",
        "stage4",
    ]
    assert facts["image"] == [3, 96, 96]


@pytest.mark.long
def test_info_of_a_network_of_timm(bbframe):
    facts = json.loads(bbframe("info --json backbone=timm backbone.name=resnet18 data.image_size=64")[1])
    native = json.loads(bbframe("info --json backbone=resnet18 data.image_size=64")[1])
    assert facts["source"] == "timm"
    assert [stage["map"] for stage in facts["stages"][1:]] == [stage["map"] for stage in native["stages"][1:]]
    assert facts["gmacs"] == pytest.approx(native["gmacs"])
    assert facts["parameters"] == native["parameters"]


@pytest.mark.long
def test_info_loads_no_weights(bbframe, monkeypatch):
    monkeypatch.setattr("bbframe.auto.Checkpoint", None)
    code, out, _ = bbframe("info backbone=resnet18 backbone.pretrained=true")
    assert code == 0
    assert "not loaded" in out


def test_cfg_shows_the_configuration(bbframe):
    code, out, _ = bbframe("info --cfg job backbone=resnet18 seed=7")
    assert code == 0
    assert "seed: 7" in out


@pytest.mark.parametrize("name", names())
def test_the_costs_of_every_architecture_add_up(name):
    net = tiny(name).eval()
    image = example(net, batch=1)
    costs = catalog._costs(net, image)
    maps = dict(zip(net.out_features, net(image).feature_maps, strict=True))
    assert {s["name"]: s["map"] for s in costs["stages"]} == {key: list(x.shape[1:]) for key, x in maps.items()}
    assert sum(stage["parameters"] for stage in costs["stages"]) == costs["parameters"]
    last = net.stage_names[-1]
    if net.num_built == len(net.stage_names):  # the maps that are not selected are those of the built stages
        net.out_features = [last]
        assert [s["map"] for s in catalog._costs(net, image)["stages"]] == [s["map"] for s in costs["stages"]]


@pytest.mark.parametrize("name", names())
def test_the_catalog_says_what_the_network_has(name):
    net = tiny(name)
    known = type(net.config).option_names() | {"model_type"}
    line = catalog.line("mine", {key: value for key, value in net.config.to_dict().items() if key in known})
    assert line["parameters"] == sum(p.numel() for p in net.parameters())
    assert [tuple(stage.values()) for stage in line["stages"]] == list(net.config.stages)


# what is wrong


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lst", ["no command 'lst'", "did you mean 'list'?"]),
        ("inof backbone=resnet", ["no command 'inof'", "did you mean 'info'?"]),
        ("backbone=resnet", ["did you mean 'bbframe train backbone=resnet'?"]),
        ("run=a images=b", ["did you mean 'bbframe predict run=a images=b'?"]),
        ("predct run=a images=b", ["no command 'predct'", "did you mean 'predict'?"]),
        ("predict", ["predict: run, images must be given"]),
        ("predict run=nowhere images=.", ["there is no 'nowhere' in"]),
        ("predict images=nowhere run=mine", ["mine: not a run folder, it holds no config.yaml"]),
        ("predict images=mine run=mine tresholt=1", ["unknown option 'tresholt'; did you mean 'threshold'?"]),
        ("predict images", ["'images' is no option", "bbframe predict --help"]),
        ("list resnet19 resnet18", ["'resnet18'", "bbframe list --help"]),
        ("list resnt18", ["no backbone has 'resnt18' in its name; did you mean 'resnet18'?"]),
        ("list --jsn", ["'--jsn'", "bbframe list --help"]),
        ("list --config-dir nowhere", ["--config-dir nowhere: no such folder"]),
        ("info resnet18", ["'resnet18'", "backbone=resnet"]),
        ("info backbone=resnet18,resnet34", ["one backbone", "backbone=resnet18,resnet34"]),
        ("info recipes=digits_sweep", ["one backbone", "backbone=resnet18,"]),
        (
            "info backbone=timm backbone.name=convnext_atto data.image_size=8",
            ["an image of 3 x 8 x 8", "data.image_size"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_fix(line, said, bbframe, mine):
    code, out, err = bbframe(line)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "\n" not in err
    for part in said:
        assert part in err


@pytest.mark.parametrize(
    "line",
    [
        "backbone=convnextv3",
        "backbone=resnet backbone.out_indices=[3,1]",
        "data.image_sizes=32",
        "data.image_size=[1,2,3]",
        "data=image_folder",
        "--foo",
        "backbone.out_indices=[1",
    ],
)
def test_info_complains_as_training_does(line, bbframe, capsys):
    assert train.main(line.split()) == 1
    said = capsys.readouterr().err.rstrip()
    assert bbframe(f"info {line}") == (1, "", said)


@pytest.mark.parametrize(
    ("line", "said"),
    [("--help", "info"), ("list --help", "--json"), ("info -h", "data.image_size="), ("predict -h", "threshold=0.5")],
)
def test_help(line, said, bbframe):
    code, out, err = bbframe(line)
    assert (code, err) == (0, "")
    assert "usage: bbframe" in out
    assert said in out


@pytest.mark.parametrize("line", ["--help", "predict --help", pytest.param("list", marks=pytest.mark.slow)])
def test_a_reader_that_has_seen_enough_ends_it_quietly(line):
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        code = (
            f"import sys; from bbframe.app.cli import main; sys.argv = ['bbframe', *{line.split()}]; sys.exit(main())"
        )
        done = subprocess.run([sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", ["predict run=~/mine images=~", "predict images=~/mine run=~/mine"])
def test_predict_reads_a_tilde_as_the_home_folder(line, bbframe, mine, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bbframe(line) == (1, "", f"error: {tmp_path}/mine: not a run folder, it holds no config.yaml")


# the installed command


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as the wheel has it: conf/ and recipes/ inside, Hydra's plugin beside it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "bbframe", site / "bbframe", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "hydra_plugins", site / "hydra_plugins")
    for folder in ("conf", "recipes"):
        shutil.copytree(ROOT / folder, site / "bbframe" / folder)
    return site


@pytest.mark.long
def test_the_command_works_from_the_wheel_and_loads_little(installed, tmp_path):
    code = """
import sys
from bbframe.app.cli import main
for line in ("list resnet18", "info backbone=resnet18"):
    sys.argv = ["bbframe", *line.split()]
    assert main() == 0
print(sorted({"lightning", "torchvision", "timm", "matplotlib", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "microsoft/resnet-18" in done.stdout
    assert "512 x 1 x 1" in done.stdout


@pytest.mark.long
def test_the_commands_of_the_readme_compose(bbframe):
    pattern = r"^bbframe (list|info|predict) ?([^#\n]*?) *(?:#.*)?$"
    lines = re.findall(pattern, (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {command for command, _ in lines} >= {"list", "info"}
    for command, rest in lines:
        if command == "predict":
            cli.prediction_options(rest.split())
        else:
            assert bbframe(f"{command} {rest}" if command == "list" else f"info --cfg job {rest}")[0] == 0
