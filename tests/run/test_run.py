"""Real runs, small ones: what a folder holds, what repeats, what resumes, what a sweep survives."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from bbframe import AutoBackbone, make_backbone, registry
from bbframe.app import train
from bbframe.app.places import HOME
from bbframe.app.sweep_jobs import Launch
from bbframe.config import BackboneConfigMixin
from bbframe.hub.checkpoint_files import Checkpoint
from bbframe.run.run_log import logging_to
from tests.run.helpers import TINY, command, summary


def run(*overrides: str) -> Path:
    """Train the tiny network."""
    return command(*TINY, *overrides)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _at(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def first(place):
    """One run that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return place / run("backbone.drop_path_rate=0.2")


@pytest.mark.long
def test_the_folder_holds_everything(first):
    names = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "overrides.yaml",
        "environment.json",
        "metrics.csv",
        "metrics.json",
        "train.log",
        "predictions.csv",
        "report.html",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/learning_curves.png",
        "pictures/confusion_matrix.png",
        "pictures/predictions.png",
        "pictures/worst_mistakes.png",
        "pictures/reliability.png",
        "backbone/config.json",
        "backbone/model.safetensors",
    }
    assert yaml.safe_load((first / "config.yaml").read_text())["backbone"]["depths"] == [1, 1, 1, 1]
    done = summary(first)
    assert done["test"]["accuracy"] > 0.3
    assert (done["metric"], done["mode"], set(done["val"])) == ("accuracy", "max", {"accuracy"})
    assert set(done["seconds"]) == {"fit", "test", "total"}
    assert done["peak_memory_bytes"] > 2**20
    assert (done["task"], done["data"], done["head"]) == ("classification", "digits", "linear")
    rows = list(csv.DictReader((first / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["4", "8"]
    assert all(float(row[name]) > 0 for row in rows for name in ("train/loss", "val/loss", "val/accuracy"))
    assert rows[done["best_epoch"] - 1]["val/accuracy"] == str(done["val"]["accuracy"])


def test_the_predictions_agree_with_the_metrics(first):
    rows = list(csv.DictReader((first / "predictions.csv").read_text().splitlines()))
    right = sum(row["class"] == row["predicted"] for row in rows)
    assert summary(first)["test"]["accuracy"] == pytest.approx(right / len(rows))
    assert len({row["image"] for row in rows}) == len(rows) == summary(first)["test_images"] == 269
    for row in rows:
        assert float(row["true_probability"]) == pytest.approx(math.exp(-float(row["loss"])), abs=1e-5)
        assert (row["probability"] == row["true_probability"]) is (row["class"] == row["predicted"])


def test_every_metric_of_a_test_has_an_interval_around_it(first):
    done = summary(first)
    assert set(done["test_low"]) == set(done["test_high"]) == set(done["test"]) - {"loss"}
    assert len(done["test_low"]) == 3
    for name, low in done["test_low"].items():
        assert 0 < low < done["test"][name] < done["test_high"][name] <= 1
    low, high = done["test_low"]["accuracy"], done["test_high"]["accuracy"]
    line = f"test/accuracy  {done['test']['accuracy']:.4f} ({low:.3f} to {high:.3f}, 95 % bootstrap)"
    assert line in (first / "train.log").read_text()


def test_probabilities_are_calibrated_on_the_validation_images(first):
    """Two epochs leave a network that is less sure than it is right: a temperature below 1 mends it."""
    found = summary(first)["calibration"]
    assert 0.05 < found["temperature"] < 1
    assert found["ece_scaled"] < found["ece"] / 2


@pytest.mark.long
def test_training_stops_early_when_nothing_gets_better():
    folder = run("trainer.max_epochs=9", "trainer.early_stopping=1", "optim.lr=1e-12")
    assert summary(folder)["epochs"] == 2


@pytest.mark.long
def test_the_average_of_the_weights_is_what_is_kept_and_tested():
    folder = run("trainer.ema_decay=0.5", "trainer.max_epochs=1")
    best, last = (torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    average, current = best["state_dict"], last["current_model_state"]
    key = "backbone.stem.0.weight"
    assert not torch.equal(average[key], current[key])
    torch.testing.assert_close(average, last["state_dict"], rtol=0, atol=0)
    assert torch.equal(AutoBackbone.from_pretrained(folder / "backbone").stem[0].weight, average[key])


def test_the_end_says_what_was_built_and_how_good_it_is(first):
    log = (first / "train.log").read_text()
    assert "built stem to stage4" in log
    assert "stage4 (32 channels, stride 32)" in log
    for name in ("backbone", "source", "parameters", "GMACs", "epochs", "val/accuracy", "test/accuracy", "seconds"):
        assert f"\n{name} " in log


def test_a_checkpoint_is_plain_and_holds_its_configuration(first):
    saved = torch.load(first / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["bbframe"]["config"]["backbone"]["hidden_sizes"] == [8, 16, 24, 32]
    assert saved["bbframe"]["class_names"] == [str(digit) for digit in range(10)]


def test_the_backbone_is_left_in_the_layout_of_the_hub(first):
    net = AutoBackbone.from_pretrained(first / "backbone", out_indices=[1, 4])
    assert net.channels == [8, 32]
    assert net.preprocessing.size == (32, 32)
    best = torch.load(first / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(net.stem[0].weight, best["backbone.stem.0.weight"])


@pytest.mark.long
def test_plugins_are_recorded_in_the_folder_and_in_the_checkpoint(place, monkeypatch):
    (place / "my_parts.py").write_text("")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(registry, "_plugins", {})
    registry.load_plugin("my_parts")
    folder = run("trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false")
    named = [{"module": "my_parts", "version": None, "sha256": hashlib.sha256(b"").hexdigest()}]
    assert json.loads((folder / "environment.json").read_text())["plugins"] == named
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["bbframe"]["plugins"] == named


@pytest.mark.long
def test_a_rerun_is_bit_identical(first):
    again = command(f"rerun={first}")
    assert summary(again)["test"] == summary(first)["test"]
    assert summary(again)["val"] == summary(first)["val"]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (first, again)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.long
def test_a_rerun_takes_overrides_on_top(first):
    again = command(f"rerun={first}", "trainer.max_epochs=1", "seed=3")
    config = yaml.safe_load((again / "config.yaml").read_text())
    assert (config["trainer"]["max_epochs"], config["seed"]) == (1, 3)
    assert config["backbone"] == yaml.safe_load((first / "config.yaml").read_text())["backbone"]


@pytest.mark.long
def test_evaluation_repeats_the_test_of_a_checkpoint(first):
    again = command("train=false", f"ckpt_path={first}/checkpoints/best.ckpt")
    assert summary(again)["test"] == pytest.approx(summary(first)["test"])
    assert not (again / "checkpoints").exists()


@pytest.mark.long
def test_a_resumed_run_ends_as_an_uninterrupted_one_does(first, place):
    """Two epochs, stopped in the middle of the second, then continued: the same weights to the last bit."""
    from lightning.pytorch.callbacks import Callback

    import bbframe.run.trainer as module

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 1:
                raise RuntimeError("pulled the plug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_lightning_parts", lambda group, *_: [Stop()] if group == "callbacks" else [])
        assert train.main([*TINY, "backbone.drop_path_rate=0.2", "name=stopped"]) == 1
    (stopped,) = Path("outputs").rglob("*_stopped")
    assert "pulled the plug" in (stopped / "error.txt").read_text()
    resumed = command(f"ckpt_path={stopped}/checkpoints/last.ckpt", "name=resumed")
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (first, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert summary(resumed)["test"] == summary(first)["test"]
    assert (resumed / "metrics.csv").read_text() == (first / "metrics.csv").read_text()
    assert summary(resumed)["epochs"] == 2
    before = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)["seconds"]
    for step, seconds in before.items():
        assert summary(resumed)["seconds"][step] > seconds > 0
    twice = command(f"ckpt_path={resumed}", "trainer.max_epochs=3", "name=twice")
    rows = (twice / "metrics.csv").read_text().splitlines()
    assert rows[:3] == (first / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert summary(twice)["seconds"]["fit"] > summary(resumed)["seconds"]["fit"]


@pytest.mark.long
@pytest.mark.parametrize("moved", [False, True])
def test_the_weights_of_the_best_epoch_are_no_checkpoint_to_train_on(first, tmp_path, moved, capsys):
    best = first / "checkpoints" / "best.ckpt"
    if moved:
        best = Path(shutil.copy(best, tmp_path / "best.ckpt"))
    assert train.main([f"ckpt_path={best}", "trainer.max_epochs=3"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: checkpoint {best} holds weights alone, no state of an optimizer")
    assert f"a training goes on from ckpt_path={best.with_name('last.ckpt')}" in error
    assert (f"give backbone.pretrained=true backbone.checkpoint={best}" in error) is moved
    assert "\n" not in error


def test_the_best_checkpoint_is_a_third_of_the_last(first):
    best, last = ((first / "checkpoints" / f"{name}.ckpt").stat().st_size for name in ("best", "last"))
    assert best < 0.4 * last


@pytest.mark.slow
def test_a_run_may_leave_no_checkpoint_and_keeps_what_it_has_found():
    folder = run("trainer.keep=0", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert not (folder / "checkpoints").exists()
    assert summary(folder)["best_epoch"] == 1
    assert (folder / "backbone" / "model.safetensors").is_file()


@pytest.mark.slow
def test_options_that_change_the_training_all_work_at_once():
    folder = run(
        "head=multi_level",
        "backbone.out_indices=[1,3]",
        "task.freeze=1",
        "task.label_smoothing=0.1",
        "task.activation_checkpointing=true",
        "optim=sgd",
        "optim.backbone_lr=0.005",
        "optim.layer_decay=0.8",
        "trainer.ema_decay=0.9",
        "trainer.gradient_clip_val=1.0",
        "trainer.accumulate_grad_batches=2",
        "trainer.precision=bf16-mixed",
        "trainer.early_stopping=3",
        "data.augment.mixup=0.2",
        "trainer.log_every_n_steps=1",
        "+callbacks.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor",
    )
    with (folder / "metrics.csv").open() as file:
        rates = [{name: cell for name, cell in row.items() if name.startswith("lr-")} for row in csv.DictReader(file)]
    assert len(rates) == 2
    assert all(row and all(float(rate) > 0 for rate in row.values()) for row in rates)
    assert AutoBackbone.from_pretrained(folder / "backbone").out_features == ["stage1", "stage3"]


@pytest.fixture
def photos(place):
    """Scans as files, wider than high, in folders by class, one of them broken."""
    from bbframe.data.images.digits import scans

    pixels, labels = scans()
    for index in range(120):
        folder = place / "photos" / f"digit {labels[index] % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).resize((40, 24)).save(folder / f"{index}.png")
    (place / "photos" / "digit 0" / "broken.png").write_bytes(b"no picture")
    return place / "photos"


@pytest.mark.long
def test_a_folder_of_images_trains_and_counts_what_it_skips_and_assumes(photos):
    pictures = [Image.new("L", (40, 24), grey) for grey in (0, 90, 200)]
    pictures[0].save(photos / "digit 1" / "moving.gif", save_all=True, append_images=pictures[1:])
    folder = run(
        "data=image_folder",
        f"data.root={photos}",
        "data.on_error=skip",
        "data.image_size=[32,64]",
        "data.num_workers=0",
        "data.batch_size=16",
        "trainer.max_epochs=1",
    )
    done = summary(folder)
    assert done["image_size"] == [32, 64]
    assert done["skipped"] == 1
    assert done["assumed"] == {"animations of which the first picture is taken": 1}
    assert set(done["class_f1"]) == {"digit 0", "digit 1", "digit 2"}
    assert "broken.png" in (folder / "train.log").read_text()


@pytest.mark.long
def test_pretrained_weights_bring_their_preprocessing_and_are_recorded(first, photos):
    folder = run(
        "backbone.pretrained=true",
        f"backbone.checkpoint={first}/backbone",
        "data=image_folder",
        f"data.root={photos}",
        "data.on_error=skip",
        "data.num_workers=0",
        "data.batch_size=16",
        "trainer.max_epochs=1",
    )
    assert summary(folder)["image_size"] == [32, 32]  # the size that the backbone was saved with
    weights = json.loads((folder / "environment.json").read_text())["weights"]
    digest = hashlib.sha256((first / "backbone" / "model.safetensors").read_bytes()).hexdigest()
    assert weights["sha256"] == {"model.safetensors": digest}
    assert "tensors loaded" in weights["report"]
    assert weights["report"].splitlines()[0] in (folder / "report.html").read_text()
    assert "broken.png" in (folder / "report.html").read_text()


@pytest.mark.long
def test_a_pretrained_run_builds_two_configs_and_opens_its_checkpoint_once(first, monkeypatch):
    """One config is the run's, the other is the checkpoint's."""
    counts = {"config": 0, "checkpoint": 0}

    def counted(what, cls, method):
        original = getattr(cls, method)

        def call(*args, **kwargs):
            counts[what] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(cls, method, call)

    counted("config", BackboneConfigMixin, "__post_init__")
    counted("checkpoint", Checkpoint, "__init__")
    run("backbone.pretrained=true", f"backbone.checkpoint={first}/backbone", "debug=true")
    assert counts == {"config": 2, "checkpoint": 1}


@pytest.mark.long
def test_a_record_pins_the_commit_that_the_weights_came_from(first, monkeypatch):
    import bbframe.run.configuration as module

    def from_the_hub(options):
        net = make_backbone(options)
        net.load_report.revision = "0123abc"
        return net

    monkeypatch.setattr(module, "make_backbone", from_the_hub)
    folder = run("backbone.pretrained=true", f"backbone.checkpoint={first}/backbone", "debug=true")
    assert yaml.safe_load((folder / "config.yaml").read_text())["backbone"]["revision"] == "0123abc"


@pytest.mark.long
def test_a_checkpoint_suffices_once_the_pretrained_weights_are_gone(first, place):
    """Fields that the pretrained checkpoint supplied, and its preprocessing, come from ours."""
    weights = place / "pretrained"
    shutil.copytree(first / "backbone", weights)
    settings = json.loads((weights / "preprocessor_config.json").read_text())
    (weights / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    open_fields = ["backbone.depths=null", "backbone.hidden_sizes=null", "backbone.out_indices=[1,3]"]
    tuned = run(*open_fields, "backbone.pretrained=true", f"backbone.checkpoint={weights}", "trainer.max_epochs=1")
    shutil.rmtree(weights)
    again = command("train=false", f"ckpt_path={tuned}/checkpoints/best.ckpt")
    assert summary(again)["test"] == pytest.approx(summary(tuned)["test"])
    longer = command(f"ckpt_path={tuned}/checkpoints/last.ckpt", "trainer.max_epochs=2")
    assert summary(longer)["epochs"] == 2
    assert json.loads((longer / "backbone" / "preprocessor_config.json").read_text())["image_mean"] == [0.1, 0.2, 0.3]


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["backbone.depths=[1,1,2,1]"], "is of another network"),
        (["data=image_folder", "data.root=photos", "data.on_error=skip"], "tells 10 classes apart (0, 1, 2, ...)"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(change, said, first, photos, capsys):
    assert train.main(["train=false", f"ckpt_path={first}/checkpoints/best.ckpt", *change]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: checkpoint ")
    assert "\n" not in error
    assert said in error


@pytest.mark.slow
def test_two_processes_share_one_folder_and_test_every_image_once(place):
    """The head reads the last of two maps: a parameter without a gradient would end the run."""
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", "backbone.out_indices=[1,3]"]
    line = [sys.executable, str(HOME / "train.py"), *TINY, *devices, "trainer.max_epochs=1", "name=two"]
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (place / "outputs").rglob("*_two")
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len({row["image"] for row in rows}) == len(rows) == 269
    right = sum(row["class"] == row["predicted"] for row in rows)
    test = summary(folder)["test"]
    assert test["accuracy"] == pytest.approx(right / len(rows))
    assert test["loss"] == pytest.approx(sum(float(row["loss"]) for row in rows) / len(rows), abs=1e-5)


@pytest.mark.long
def test_debug_runs_one_batch_of_everything_and_writes_no_checkpoint():
    folder = run("debug=true", "trainer.max_epochs=5")
    assert summary(folder)["epochs"] == 1
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_ends_in_a_table(capsys):
    swept = ["-m", "seed=1,2", "backbone.out_indices=[1,3],[2,9]"]
    assert train.main([*TINY, *swept, "trainer.max_epochs=1", "name=swept"]) == 1
    captured = capsys.readouterr()
    (folder,) = Path("outputs").rglob("*_swept")
    assert captured.err.count("out_indices=[2, 9]: no stage 9") == 2
    rows = list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))
    assert len([row for row in rows if row["seeds"] == "2"]) == 1
    table = (folder / "leaderboard.md").read_text()
    assert "±" in table
    assert "no stage 9" in table
    assert (folder / "leaderboard.png").stat().st_size > 5000


@pytest.mark.long
def test_a_run_that_vanishes_counts_as_failed(monkeypatch, capsys):
    """As when the process of another launcher is killed: no error reaches us, and no result."""
    monkeypatch.setattr(Launch, "train", lambda launch, job, position: None)
    assert train.main([*TINY, "-m", "seed=1,2", "name=vanished"]) == 1
    assert capsys.readouterr().err.count("the run ended without a result") == 2
    (folder,) = Path("outputs").rglob("*_vanished")
    assert "ended without a result" in (folder / "leaderboard.md").read_text()


@pytest.mark.slow
def test_a_group_and_one_of_its_keys_are_swept_together():
    small = ["trainer.max_epochs=1", "data.batch_size=8", "trainer.limit_train_batches=1"]
    small += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "name=together"]
    code = train.main(["-m", "backbone=resnet18,convnextv2_atto", "backbone.out_indices=[1,3],[2,4]", *small])
    assert code == 0
    (folder,) = Path("outputs").rglob("*_together")
    seen = {(s["backbone"], tuple(s["maps"])) for s in map(summary, sorted(p for p in folder.iterdir() if p.is_dir()))}
    assert seen == {
        (b, m) for b in ("resnet18", "convnextv2_atto") for m in (("stage1", "stage3"), ("stage2", "stage4"))
    }


@pytest.mark.long
def test_a_loss_that_is_no_number_ends_the_run_and_says_what_to_try(capsys):
    assert (
        train.main(
            [*TINY, "optim.lr=100", "optim.momentum=0.99", "name=diverged", "optim=sgd", "schedule.warmup_epochs=0"]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "optim.lr" in error or "learning rate" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("silenced", [False, True])
def test_a_silenced_terminal_leaves_the_record_its_log(silenced, tmp_path, capsys):
    logging.getLogger("bbframe").disabled = silenced  # as hydra/job_logging=disabled does
    with logging_to(tmp_path / "train.log"):
        logging.getLogger("bbframe").info("an epoch")
    assert "an epoch" in (tmp_path / "train.log").read_text()
    assert capsys.readouterr().out == ("" if silenced else "an epoch\n")
