"""The command line as a stranger meets it: what it says when something is wrong, and that it says it early."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from bbframe.app import train
from bbframe.app.combinations import expand
from bbframe.app.places import HOME
from bbframe.app.run_request import changed

ROOT = HOME

# a command line, and what its one line must say: what, where, and the nearest fix
MISTAKES = [
    ("backbone=convnextv3", ["backbone=convnextv3", "did you mean 'convnextv2'?"]),
    ("recipes=digit_quick", ["recipes=digit_quick", "did you mean 'digits_quick'?"]),
    ("backbon=resnet", ["'backbon'", "did you mean 'backbone'?"]),
    ("backbone=convnextv2 backbone.out_indicez=[1]", ["convnextv2: unknown option 'out_indicez'", "'out_indices'?"]),
    ("trainer.max_epoch=3", ["trainer: unknown option 'max_epoch'", "did you mean 'max_epochs'?"]),
    ("trainr.max_epochs=3", ["unknown group 'trainr'", "did you mean 'trainer'?"]),
    ("backbone=convnextv2 backbone.out_indices=[3,1]", ["convnextv2: out_indices=[3, 1]", "did you mean [1, 3]?"]),
    ("backbone.out_indices=[9]", ["resnet: out_indices=[9]", "0..4 (0=stem, 1=stage1", "nearest is 4"]),
    ("backbone.out_indices=[-7]", ["resnet: out_indices=[-7]", "nearest is -5"]),
    ("backbone.out_indices=[[1]]", ["resnet: out_indices", "integer", "did you mean [1]?"]),
    ("backbone.out_indices=[1] backbone.out_features=[stage2]", ["out_features=['stage2']", "out_indices=[1]"]),
    ("backbone.out_strides=[5]", ["out_strides=[5]", "[4, 8, 16, 32]", "nearest is 4"]),
    ("backbone=resnet backbone.drop_path_rate=0.1", ["resnet: unknown option 'drop_path_rate'"]),
    ("+backbone.foo=1", ["resnet: unknown option 'foo'"]),
    ("+foo=1", ["configuration: unknown option 'foo'"]),
    ("optim=sgd optim.betas=[0.9,0.99]", ["optim: unknown option 'betas'"]),
    ("optim.lr=fast", ["optim: lr='fast' must be a number"]),
    ("task.freeze=9", ["resnet: task.freeze=9", "4=stage4"]),
    ("trainer.precision=fp16", ["precision='fp16'"]),
    ("backbone=resnet,dinov2", ["backbone=resnet,dinov2", "add -m"]),
    ("backbone.out_indices=[1", ["'backbone.out_indices=[1'", "quote"]),
    ("data=image_folder", ["data.root=path/to/images"]),
    ("data=image_folder data.root=nowhere", ["nowhere"]),
    ("task=detektion", ["task=detektion", "did you mean 'detection'?"]),
    ("task=detection head=linear", ["task=detection has no use for head=linear", "choose head=faster_rcnn or fcos"]),
    ("task=detection head=fcoss", ["head=fcoss", "did you mean 'fcos'?"]),
    ("head=fcos", ["task=classification has no use for head=fcos", "choose head=linear or multi_level"]),
    ("task=detection data=digits", ["data=digits is for task=classification", "choose data=coco or digit_scenes"]),
    ("data=digit_scenes", ["data=digit_scenes is for task=detection", "or task=detection"]),
    ("task=detection head.channels=0", ["head: channels=0 must be an integer within 1..1024"]),
    ("task=detection backbone.out_indices=[0,1,2]", ["pyramid=fpn takes maps of rising strides, not [4, 4, 8]"]),
    ("task=detection backbone.out_indices=[0,1]", ["not [4, 4]", "backbone.out_strides=[4, 8, 16, 32]"]),
    ("task=detection head.extra_levels=9", ["head: extra_levels=9 must be an integer within 0..4"]),
    ("task=detection trainer.precision=bf16-true", ["precision='bf16-true'", "use bf16-mixed"]),
    ("task=detection head.channels=72", ["head: channels=72 must be a multiple of 32", "the nearest is 64"]),
    ("task=detection head=mask_rcnn head.num_convs=2", ["head: num_convs=2", "R-CNNs have none"]),
    ("task=detection head.pyramid=bifpn", ["head: pyramid='bifpn'"]),
    ("schedule=multistep schedule.milestones=[2]", ["schedule: milestones[0]=2 must be a number above 0 and below 1"]),
    ("train=false", ["ckpt_path="]),
    ("ckpt_path=nowhere.ckpt", ["nowhere.ckpt"]),
    ("rerun=nowhere", ["nowhere"]),
    ("+callbacks.x._target_=os.system", ["'os.system'", "not on the list"]),
    ("logger=tensorbord", ["did you mean 'tensorboard'?"]),
    ("backbone.pretrained=true backbone.checkpoint=./nowhere", ["./nowhere: no such folder or file"]),
    ("backbone.source=timm backbone.timm_name=null", ["resnet: source=timm needs timm_name"]),
    ("foo", ["'foo'", "key=value"]),
    ("--foo", ["'--foo'", "--help"]),
    ("-m seed=1,2 hydra/launcher=basik", ["hydra/launcher=basik", "did you mean 'basic'?"]),
    ("-m seed=1,2 trainer.devices=2", ["trainer: devices=2", "a run of a sweep has one device"]),
    ("-m seed=1,2 hydra/sweeper=basic", ["hydra/sweeper", "every combination"]),
    ("-m seed=1,2 optim.lr=fast", ["optim: lr='fast' must be a number"]),
]


GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A working directory of its own: the command works from anywhere."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_with_the_nearest_fix(line, said, at, capsys):
    assert train.main(line.split()) != 0
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    for part in said:
        assert part in error


@pytest.fixture
def bad(at):
    """Things on disk that cannot serve."""
    shutil.copytree(GOLDEN / "resnet" / "basic", at / "resnet")
    shutil.copytree(at / "resnet", at / "cut")
    (at / "cut" / "model.safetensors").write_bytes((at / "resnet" / "model.safetensors").read_bytes()[:-1000])
    shutil.copytree(at / "resnet", at / "empty")
    (at / "empty" / "model.safetensors").write_bytes(b"")
    (at / "nothing").mkdir()
    return at


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backbone=convnextv2 backbone.checkpoint=resnet", ["resnet", "'resnet', not of 'convnextv2'"]),
        ("backbone=resnet18 backbone.checkpoint=resnet", ["depths=(1, 1, 2, 1) (here (2, 2, 2, 2))", "null"]),
        ("backbone.checkpoint=cut backbone.depths=null", ["cut"]),
        ("backbone.checkpoint=empty/model.safetensors", ["empty/model.safetensors"]),
    ],
)
def test_weights_that_do_not_serve_are_said_in_one_line(line, said, bad, capsys):
    null = ["backbone.hidden_sizes=null", "backbone.embedding_size=null", "backbone.downsample_in_first_stage=null"]
    extra = ["backbone.depths=null", *null] if "empty" in line else null if "cut" in line else []
    assert train.main([*line.split(), *dict.fromkeys(extra), "backbone.pretrained=true"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    for part in said:
        assert part in error


@pytest.mark.parametrize(("root", "said"), [("nothing", "no class folders")])
def test_images_that_do_not_serve_are_said_in_one_line(root, said, bad, capsys):
    assert train.main(["data=image_folder", f"data.root={root}"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: data: {root}: ")
    assert "\n" not in error
    assert said in error


def test_gpu_without_one_is_said_before_training(at, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert train.main(["trainer.accelerator=gpu"]) == 1
    assert "trainer: accelerator='gpu'" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_said_at_once(at, capsys):
    (at / "taken").write_text("a file")
    assert train.main(["output_dir=taken"]) == 1
    assert "output_dir=taken" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["environment", "debug"])
def test_a_traceback_on_request(how, at, capsys, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert train.main(["optim.lr=fast", *(["debug=true"] if how == "debug" else [])]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_names_every_group_and_imports_next_to_nothing(at):
    """Two seconds are promised; what costs time is importing, so that is what is counted."""
    code = "import sys, train; train.main(['--help']); print(sorted(set(sys.modules) & {'torch', 'hydra', 'yaml'}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for group in (p.name for p in (ROOT / "conf").iterdir() if p.is_dir()):
        assert f"\n  {group}" in done.stdout
    assert done.stdout.count("\n  python train.py") == 3


@pytest.mark.long
def test_a_configuration_error_never_waits_for_lightning(at):
    code = "import sys, train; train.main(['backbone.out_indices=[9]']); print(*[x in sys.modules for x in HEAVY])"
    code = code.replace("HEAVY", "('lightning', 'timm')")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.stdout.split() == ["False", "False"]


def test_cfg_shows_the_configuration_and_hides_secrets(at, capsys, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "hunter22")
    arguments = ["--cfg", "job", "seed=7", "+logger.wandb.api_key=abc", "tags=['${oc.env:MY_API_KEY}']"]
    assert train.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "seed: 7" in shown
    assert "hunter22" not in shown
    assert "abc" not in shown


def test_a_list_is_one_value_and_a_comma_makes_several():
    assert expand(["a=1,2", "b=[1,3],[2]", "c=[5,6]"]) == [
        ["a=1", "b=[1,3]", "c=[5,6]"],
        ["a=1", "b=[2]", "c=[5,6]"],
        ["a=2", "b=[1,3]", "c=[5,6]"],
        ["a=2", "b=[2]", "c=[5,6]"],
    ]


def test_only_what_the_overrides_change_changes_a_record():
    record = {"lr": 1, "decay": 9, "inner": {"x": 5, "y": 6}, "gone": 3}
    before = {"lr": 2, "decay": 2, "inner": {"x": 0, "y": 0}}
    after = {"lr": 2, "decay": 7, "inner": {"x": 0, "y": 1}}
    assert changed(record, before, after) == {"lr": 1, "decay": 7, "inner": {"x": 5, "y": 1}, "gone": 3}


def test_what_an_override_deletes_is_deleted_and_a_new_option_keeps_its_default():
    record = {"logger": {"csv": {}, "own": 1}}
    before = {"logger": {"csv": {}}, "new": {"a": 1}}
    assert changed(record, before, {"logger": {}, "new": {"a": 1}}) == {"logger": {"own": 1}}


def test_another_choice_of_a_group_replaces_it_whole():
    record = {"model_type": "resnet", "depths": [1, 1]}
    after = {"model_type": "dinov2", "hidden_size": 8}
    assert changed(record, {"model_type": "resnet", "depths": [3, 3]}, after) == after


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("backbone.depths.x=3", "backbone.depths is a list, without 'x'; give it whole: backbone.depths=[...]"),
        ("optim.lr=0.1 backbone.depths.x=3", "backbone.depths is a list, without 'x'"),
        ("optim={lr:3,y:1}", "optim: unknown option 'y'; choose from: backbone_lr"),
        ("data.augment={mixup:0.2,cutmixx:1}", "data.augment: unknown option 'cutmixx'; did you mean 'cutmix'?"),
        ("callbacks={x:1}", "callbacks: has no 'x' yet; add it by a plus sign: +callbacks.x=..."),
        ("backbone=timm backbone.model_args.img_size=64", "+backbone.model_args.img_size=..."),
        ("backbone=timm backbone.name=", "timm_backbone: name='' must be text"),
        ("--help data.root", "--help data.root: no such option; it belongs to data=image_folder or voc: type that"),
        ("backbone=timm --help backbone.timm_name", "--help backbone.timm_name: no such option"),
        ("logger=tensorboard", "TensorBoardLogger needs a package that is not installed: pip install 'bbframe[tens"),
        ("-m logger=tensorboard seed=1,2", "TensorBoardLogger needs a package that is not installed"),
        ("seed=1", "4 times in training, exceed the"),
        ("-m seed=1,2", "4 times in training, exceed the"),
    ],
)
def test_what_is_wrong_with_a_mapping_a_list_or_a_machine_is_said(line, text, at, capsys, monkeypatch):
    monkeypatch.setattr("bbframe.auto.machine_memory", lambda: 100e6)  # of which the default's weights take 45
    monkeypatch.setattr("bbframe.run.lightning_parts.importlib.util.find_spec", lambda package: None)
    assert train.main(line.split()) == 1
    error = capsys.readouterr().err.strip()
    assert text in error
    assert "\n" not in error
