"""The calibration of a run: fitted on validation images, told of a test only when these are not the tested ones."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.classification import MulticlassRecall

from bbframe.heads import ClassifierOptions
from bbframe.run import calibration_file
from bbframe.run.calibration_file import FittedCalibration, fit_calibration, read_calibration, write_calibration
from bbframe.tasks.calibration import Calibration
from bbframe.tasks.classification import Classification, ClassifiedImage
from bbframe.tasks.familiarity import Familiarity
from bbframe.tasks.optimizer_options import AdamWOptions, CosineOptions
from bbframe.tasks.task_options import ClassificationOptions
from tests.tiny import tiny


@pytest.fixture
def task():
    parts = {"head": ClassifierOptions(), "optim": AdamWOptions(), "schedule": CosineOptions()}
    return Classification(ClassificationOptions(), tiny("resnet"), ["a", "b", "c"], **parts)


def scored(images=600, temperature=2.0):
    """Scores (N, 3), and labels (N,) drawn from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(images, 3, generator=generator)
    return scores, torch.multinomial((scores / temperature).softmax(1), 1, generator=generator)[:, 0]


def trainer(*batches):
    """A trainer whose validation batches are (scores, labels); the features of every image are its scores."""

    def predict(task, datamodule=None, dataloaders=None):
        return [(scores, labels, scores) for scores, labels in batches]

    return SimpleNamespace(world_size=1, predict=predict)


def data(test_part="test", images=600):
    counts = {"train": images, "val": images}
    more = {"loader_of": lambda part, indices: None, "teardown": lambda stage: None}
    return SimpleNamespace(test_part=test_part, counts=counts, num_classes=3, **more)


def test_it_is_fitted_on_all_validation_batches(task):
    scores, labels = scored()
    fit_calibration(trainer((scores[:400], labels[:400]), (scores[400:], labels[400:])), task, data())
    assert task.calibrated.temperature == pytest.approx(2, rel=0.2)
    together = task.calibrated.temperature
    fit_calibration(trainer((scores, labels)), task, data())
    assert task.calibrated.temperature == pytest.approx(together)


def test_the_images_that_are_tested_say_nothing_about_their_own_temperature(task, caplog):
    task.calibrated = Calibration(temperature=3.0)
    with caplog.at_level(logging.INFO, "bbframe"):
        found = fit_calibration(trainer(scored()), task, data(test_part="val"))
    assert found.calibration.temperature == pytest.approx(2, rel=0.2)
    assert (task.calibrated, task.familiarity) == (Calibration(), None)
    assert "no test tells what it is worth: the validation images are the ones that are tested" in caplog.text


def test_one_of_twenty_validation_images_is_unfamiliar(task):
    scores, labels = scored()
    found = fit_calibration(trainer((scores, labels)), task, data())
    assert (found.familiarity(scores) > 1).double().mean() == pytest.approx(0.05, abs=0.002)
    assert found.calibration.images == 600
    assert task.familiarity is found.familiarity
    few = fit_calibration(trainer((scores[:19], labels[:19])), task, data())
    assert few.familiarity is task.familiarity is None
    task.options = replace(task.options, unfamiliar=False)
    assert fit_calibration(trainer((scores, labels)), task, data()).familiarity is None


def test_no_checkpoint_holds_what_is_fitted_after_it(task):
    before = set(task.state_dict())
    fit_calibration(trainer(scored()), task, data())
    assert set(task.state_dict()) == before


def test_a_calibration_is_read_for_the_head_that_it_belongs_to(task, tmp_path):
    assert read_calibration(tmp_path, task) == FittedCalibration()
    channels = task.backbone.channels[-1]
    familiarity = Familiarity(torch.eye(channels), torch.rand(3, channels))
    found = FittedCalibration(Calibration(temperature=1.5, images=30), familiarity)
    write_calibration(tmp_path, found, task)
    read = read_calibration(tmp_path, task)
    assert read.calibration == found.calibration
    x = torch.rand(5, channels)
    assert torch.equal(read.familiarity(x), familiarity(x))
    with torch.no_grad():
        task.head.fc.bias += 1
    assert read_calibration(tmp_path, task) == FittedCalibration()
    (tmp_path / "calibration.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"calibration.safetensors: cannot be read .*remove it to go without"):
        read_calibration(tmp_path, task)


def test_where_none_is_best_the_log_says_so(task, caplog):
    with caplog.at_level(logging.INFO, "bbframe"):
        fit_calibration(trainer((torch.eye(3), torch.arange(3))), task, data())
    assert task.calibrated.temperature is None
    assert "none from 0.05 to 20 suits the 3 validation images best" in caplog.text


def test_of_too_many_scores_those_of_every_third_image_are_held(task, monkeypatch):
    monkeypatch.setattr(calibration_file, "MOST", 600)
    fit_calibration(trainer(scored()), task, data())
    assert task.predict_every == 3
    batch = {"image": torch.zeros(7, 3, 64, 64), "label": torch.arange(7) % 3, "index": torch.arange(3, 10)}
    scores, labels, features = task.eval().predict_step(batch, 0)
    assert (len(scores), labels.tolist(), len(features)) == (3, [0, 0, 0], 3)


def images(*right):
    """Tested images of which some are right, each with a probability of 0.9, and 0.5 once scaled."""
    return [ClassifiedImage(i, int(not r), 0, 0.9, 0.9, 0.1, True, 0.5, -1.0) for i, r in enumerate(right)]


def test_a_calibration_without_a_temperature_claims_none(task):
    assert task.calibration() == task.intervals() == {}
    task.predictions = images(*[True, False] * 5)
    assert task.calibration() == {"ece": 0.4}
    task.calibrated = Calibration(temperature=2.0)
    assert task.calibration() == {"ece": 0.4, "ece_scaled": 0.0, "temperature": 2.0}


def test_metrics_that_are_not_measured_and_those_of_ones_own_have_no_interval(task):
    task.test_metrics.add_metrics({"mine": MulticlassRecall(3)})
    task.predictions = images(*[True, False] * 5)
    assert set(task.intervals()) == {"accuracy", "f1"}  # no top5 of three classes


BROKEN = {
    "nan": {"whitening": torch.full((4, 4), torch.nan), "centres": torch.ones(2, 4)},
    "whole numbers": {"whitening": torch.ones(4, 4, dtype=torch.long), "centres": torch.ones(2, 4, dtype=torch.long)},
    "no class": {"whitening": torch.ones(4, 4), "centres": torch.ones(0, 4)},
    "one axis": {"whitening": torch.ones(4, 4), "centres": torch.ones(4)},
    "one number": {"whitening": torch.ones(4, 4), "centres": torch.tensor(1.0)},
    "one tensor": {"whitening": torch.ones(4, 4)},
}


@pytest.mark.parametrize("tensors", BROKEN.values(), ids=BROKEN.keys())
def test_tensors_of_no_calibration_are_refused(task, tmp_path, tensors):
    save_file(tensors, tmp_path / "calibration.safetensors", {"calibration": "{}"})
    with pytest.raises(ValueError, match=r"calibration.safetensors: cannot be read"):
        read_calibration(tmp_path, task)


@pytest.mark.parametrize("facts", ["[]", "3", '{"temperature": 1e-30}', '{"temperature": "1"}', '{"more": 1}', "{"])
def test_facts_of_no_calibration_are_refused(task, tmp_path, facts):
    save_file({"whitening": torch.eye(2)}, tmp_path / "calibration.safetensors", {"calibration": facts})
    with pytest.raises(ValueError, match=r"calibration.safetensors: cannot be read"):
        read_calibration(tmp_path, task)
