"""Real detection runs, small ones: what a folder holds, what repeats and resumes, and COCO in miniature."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bbframe.app import train
from bbframe.app.places import HOME
from bbframe.app.report_command import make_page
from bbframe.run.results import finite
from tests.data.helpers import write_coco
from tests.run.helpers import command, summary

SMALL = [
    "task=detection",
    "backbone=convnextv2_atto",
    "backbone.depths=[1,1,1,1]",
    "backbone.hidden_sizes=[8,16,24,32]",
    "head.channels=32",
    "head.num_convs=1",
    "trainer.max_epochs=2",
]
SCENES = [
    "data.train_scenes=40",
    "data.val_scenes=8",
    "data.test_scenes=8",
    "data.image_size=[64,96]",
    "data.batch_size=8",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("detection")


@pytest.fixture(autouse=True)
def _at(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def first(place):
    """One run that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return command(*SMALL, *SCENES)


@pytest.mark.long
def test_the_folder_holds_everything(first):
    names = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "metrics.csv",
        "metrics.json",
        "predictions.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/boxes.png",
        "pictures/learning_curves.png",
        "pictures/precision_recall.png",
        "backbone/model.safetensors",
    }
    done = summary(first)
    assert done["metric"] == "mAP"
    assert {"mAP", "mAP50", "mAP75"} <= set(done["test"])
    assert set(done["class_ap"]) <= {str(digit) for digit in range(10)}
    assert done["maps"] == {"stage2": 8, "stage3": 16, "stage4": 32}
    for name in ("mAP", "mAP50"):
        assert done["test_low"][name] <= done["test"][name] <= done["test_high"][name]
    log = (first / "train.log").read_text()
    assert "feature pyramid, levels of stride 8, 16, 32\n" in log
    assert "train/classification" in log


def test_predictions_are_in_the_format_of_coco(first):
    rows = json.loads((first / "predictions.json").read_text())
    for row in rows:
        assert set(row) == {"image_id", "category_id", "bbox", "score", "image"}
        left, top, width, height = row["bbox"]
        assert 0 <= left <= left + width <= 96.01
        assert 0 <= top <= top + height <= 64.01


def gallery_of(page):
    """The data of the test images in a page."""
    block = page.read_text().partition('data-kind="detections"')[2]
    return json.loads(block.partition('<script type="application/json">')[2].partition("</script>")[0])


def test_the_page_shows_the_tested_images_and_is_made_again_from_the_folder(first):
    """Scores and boxes are rounded in predictions.json, so that the outcome of a detection may differ."""
    shown = gallery_of(first / "report.html")
    assert len(shown["images"]) == 8
    again = gallery_of(make_page(first))
    assert shown["classes"] == again["classes"] == [str(digit) for digit in range(10)]
    pairs = (sorted(page["images"], key=lambda image: image["name"]) for page in (shown, again))
    for one, other in zip(*pairs, strict=True):
        assert one["photo"] == other["photo"]
        assert one["truth"] == other["truth"]
        assert len(one["found"]) == pytest.approx(len(other["found"]), abs=1)  # one may cross the least score


@pytest.mark.long
def test_a_rerun_is_bit_identical(first):
    again = command(f"rerun={first}")
    assert summary(again)["test"] == summary(first)["test"]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (first, again)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.long
def test_evaluation_repeats_the_test_of_a_checkpoint(first):
    again = command("train=false", f"ckpt_path={first}/checkpoints/best.ckpt")
    assert summary(again)["test"] == pytest.approx(summary(first)["test"])


@pytest.mark.long
def test_a_checkpoint_of_another_task_is_refused_in_one_line(first, capsys):
    other = ["task=classification", "data=digits", "head=linear"]
    assert train.main([f"ckpt_path={first}/checkpoints/last.ckpt", *other]) == 1
    error = capsys.readouterr().err.strip()
    assert "is of task=detection, this is task=classification" in error
    assert "backbone.checkpoint=<its run folder>/backbone" in error
    assert "\n" not in error


def test_json_has_no_numbers_that_json_does_not_know():
    data = {"a": [float("nan"), 1.0], "b": {"c": float("-inf"), "d": "nan"}}
    assert finite(data) == {"a": [None, 1.0], "b": {"c": None, "d": "nan"}}


@pytest.mark.long
def test_every_fault_of_the_files_is_in_the_run_folder(place, capsys):
    content = write_coco(place, "faulty", 12)
    for annotation in content["annotations"]:
        annotation["category_id"] = 99
    (place / "faulty.json").write_text(json.dumps(content))
    files = [f"data.train_images={place}/faulty", f"data.train_annotations={place}/faulty.json"]
    assert train.main([*SMALL, "data=coco", *files, "name=faulty"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    (folder,) = Path("outputs").rglob("*_faulty")
    told = (folder / "error.txt").read_text()
    assert all(f"annotation {annotation['id']} " in told for annotation in content["annotations"])


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one_does(place):
    """Stopped in the middle of the second epoch; which regions a step samples comes from the step, not from before."""
    from lightning.pytorch.callbacks import Callback

    import bbframe.run.trainer as module

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 1:
                raise RuntimeError("pulled the plug")

    few = ["data.train_scenes=12", "data.batch_size=4", "data.val_scenes=2", "test=false"]
    line = [*SMALL, *SCENES, "head=faster_rcnn", "head.num_convs=4", "backbone.drop_path_rate=0.2", *few]
    whole = command(*line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_lightning_parts", lambda group, *_: [Stop()] if group == "callbacks" else [])
        assert train.main([*line, "name=stopped"]) == 1
    (stopped,) = Path("outputs").rglob("*_stopped")
    resumed = command(f"ckpt_path={stopped}/checkpoints/last.ckpt", "name=resumed")
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_options_of_training_are_those_of_every_task():
    folder = command(
        *SMALL,
        *SCENES,
        "data.train_scenes=8",
        "data.val_scenes=2",
        "data.test_scenes=2",
        "head=mask_rcnn",
        "head.detections_per_image=5",
        "head.num_convs=4",
        "task.freeze=1",
        "task.activation_checkpointing=true",
        "optim=sgd",
        "optim.lr=0.001",
        "optim.layer_decay=0.8",
        "schedule=multistep",
        "trainer.ema_decay=0.9",
        "trainer.gradient_clip_val=1.0",
        "trainer.precision=bf16-mixed",
        "trainer.max_epochs=1",
    )
    assert {"mAP", "mask_mAP"} <= set(summary(folder)["test"])
    assert (folder / "pictures" / "mask_precision_recall.png").is_file()


@pytest.mark.slow
def test_a_sweep_over_backbones_ends_in_a_table():
    swept = ["-m", "backbone=convnextv2_atto,resnet18", "debug=true", "name=swept", "task=detection", *SCENES]
    assert train.main(swept) == 0
    (folder,) = Path("outputs").rglob("*_swept")
    assert "mAP" in (folder / "leaderboard.md").read_text()


@pytest.mark.slow
def test_two_processes_test_as_one_does_whatever_their_shares(first, place):
    """Five images for two processes: the metric gathers what each has seen, and so do the predictions."""
    again = ["train=false", f"ckpt_path={first}/checkpoints/best.ckpt", "data.test_scenes=5"]
    alone = command(*again)
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", "name=two"]
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(HOME / "train.py"), *again, *devices]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (place / "outputs").rglob("*_two")
    assert summary(folder)["test"] == pytest.approx(summary(alone)["test"])
    ours, theirs = (json.loads((f / "predictions.json").read_text()) for f in (folder, alone))
    assert [row["image"] for row in ours] == [row["image"] for row in theirs]


@pytest.mark.slow
def test_the_recipe_for_coco_runs_on_a_miniature(place):
    write_coco(place, "train", 8)
    write_coco(place, "val", 4, seed=1)
    folder = command(
        "recipes=coco_vitdet",
        "debug=true",
        f"data.train_images={place}/train",
        f"data.train_annotations={place}/train.json",
        f"data.val_images={place}/val",
        f"data.val_annotations={place}/val.json",
        "trainer.devices=1",
        "trainer.accelerator=cpu",
        "trainer.strategy=auto",
        "data.num_workers=0",
        "data.batch_size=2",
        "data.min_size=64",
        "data.augment.crop_size=[64,64]",
        "backbone.pretrained=false",
        "backbone.num_hidden_layers=2",
        "backbone.window_block_indices=[0]",
        "backbone.hidden_size=48",
        "backbone.num_attention_heads=3",
        "head.channels=32",
    )
    assert summary(folder)["epochs"] == 1
    rows = json.loads((folder / "predictions.json").read_text())
    assert {row["category_id"] for row in rows} <= {1, 5}
    assert all("segmentation" in row for row in rows)
