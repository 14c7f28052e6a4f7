"""What a run of a user's own task leaves: the table always, the report of a task of ours where it extends one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image
from torch.nn import functional as F

from bbframe import registry
from bbframe.data.images.image_options import DigitsOptions
from bbframe.heads.head_options import ClassifierOptions
from bbframe.predict.predict_options import PredictOptions
from bbframe.predict.prediction import predict_images
from bbframe.registry import register
from bbframe.run import results
from bbframe.run.configuration import parse_configuration
from bbframe.run.training_run import run
from bbframe.tasks.classification import Classification
from bbframe.tasks.task import Task
from bbframe.tasks.task_options import ClassificationOptions
from tests.parts.test_own_parts import configuration


@dataclass(frozen=True, kw_only=True)
class OwnTaskOptions(ClassificationOptions):
    name: Literal["own"] = "own"


@dataclass(frozen=True, kw_only=True)
class OwnDigitsOptions(DigitsOptions):
    task = "own"

    name: Literal["own_digits"] = "own_digits"


@dataclass(frozen=True, kw_only=True)
class OwnHeadOptions(ClassifierOptions):
    task = "own"

    name: Literal["own_head"] = "own_head"


class Bare(Task):
    """A task that shares nothing with ours; its predictions are rows of its own."""

    monitor, mode = "val/loss", "min"

    def forward(self, x):
        return self.head(self.backbone(x).feature_maps)

    def predict(self, images):
        raise NotImplementedError

    def class_scores(self):
        return {}

    def loss(self, batch):
        return F.cross_entropy(self(batch["image"]), batch["label"])

    def training_step(self, batch, batch_idx):
        return self.finite(self.loss(batch), batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(batch))
        self.predictions += batch["index"].tolist()


class Extended(Classification):
    """Classification by another name."""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("cls", [Bare, Extended])
def test_a_run_of_a_task_of_ones_own(cls, tmp_path, monkeypatch, capsys):
    registry.find("backbone", "resnet")  # registers itself now, and stays when the parts below are gone
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    monkeypatch.setattr(registry, "_plugins", {})
    register("task", "own", OwnTaskOptions)(cls)
    register("data", "own_digits", OwnDigitsOptions)(registry.find("data", "digits").load())
    register("head", "own_head", OwnHeadOptions)(registry.find("head", "linear").load())
    short = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
    config = configuration(task={"name": "own"}, data={"name": "own_digits"}, head={"name": "own_head"}, trainer=short)
    result = run(parse_configuration(config), config, [], tmp_path)
    table = capsys.readouterr().out
    for metric in (f"val/{result['metric']}", f"test/{result['metric']}"):
        assert f"\n{metric} " in table
    assert (tmp_path / "pictures" / "learning_curves.png").is_file()
    assert (tmp_path / "predictions.csv").is_file() is (cls is Extended)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    options = PredictOptions(run=str(tmp_path), images=(str(tmp_path / "a.png"),), out=str(tmp_path / "out"))
    if cls is Extended:
        assert predict_images(options) == 0
    else:
        with pytest.raises(ValueError, match="predict: task=own is neither classification nor detection"):
            predict_images(options)
        assert not Path(options.out).exists()


def test_a_page_that_fails_is_one_line_that_says_how_to_make_it_again(tmp_path, monkeypatch, caplog):
    def fail(*given):
        raise RuntimeError("no room\nfor it")

    monkeypatch.setattr(results, "write_run_page", fail)
    with caplog.at_level(logging.WARNING, "bbframe"):
        results.write_report_page(None, None, tmp_path)
    (line,) = caplog.messages
    assert line == f"the page could not be made: no room for it; this makes it again: bbframe report {tmp_path}"
