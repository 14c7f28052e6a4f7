"""The temperature of a run: fitted on validation images that are not the tested ones, or not at all."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.classification import MulticlassRecall

from bbframe.heads import ClassifierOptions
from bbframe.run import temperature
from bbframe.run.temperature import set_temperature
from bbframe.tasks.classification import Classification, ClassifiedImage
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
    return SimpleNamespace(world_size=1, predict=lambda task, datamodule: list(batches))


def data(test_part="test", images=600):
    return SimpleNamespace(test_part=test_part, counts={"val": images}, num_classes=3)


def test_it_is_fitted_on_all_validation_batches(task):
    scores, labels = scored()
    set_temperature(trainer((scores[:400], labels[:400]), (scores[400:], labels[400:])), task, data())
    assert task.temperature == pytest.approx(2, rel=0.2)
    together = task.temperature
    set_temperature(trainer((scores, labels)), task, data())
    assert task.temperature == pytest.approx(together)


def test_the_images_that_are_tested_give_no_temperature(task, caplog):
    task.temperature = 3.0
    with caplog.at_level(logging.INFO, "bbframe"):
        set_temperature(trainer(scored()), task, data(test_part="val"))
    assert task.temperature is None
    assert "none is fitted: the validation images are the ones that are tested" in caplog.text


def test_where_none_is_best_the_log_says_so(task, caplog):
    with caplog.at_level(logging.INFO, "bbframe"):
        set_temperature(trainer((torch.eye(3), torch.arange(3))), task, data())
    assert task.temperature is None
    assert "none from 0.05 to 20 suits the 3 validation images best" in caplog.text


def test_of_too_many_scores_those_of_every_third_image_are_held(task, monkeypatch):
    monkeypatch.setattr(temperature, "MOST", 600)
    set_temperature(trainer(scored()), task, data())
    assert task.predict_every == 3
    batch = {"image": torch.zeros(7, 3, 64, 64), "label": torch.arange(7) % 3, "index": torch.arange(3, 10)}
    scores, labels = task.eval().predict_step(batch, 0)
    assert (len(scores), labels.tolist()) == (3, [0, 0, 0])


def images(*right):
    """Tested images of which some are right, each with a probability of 0.9, and 0.5 once scaled."""
    return [ClassifiedImage(i, int(not r), 0, 0.9, 0.9, 0.1, True, 0.5) for i, r in enumerate(right)]


def test_a_calibration_without_a_temperature_claims_none(task):
    assert task.calibration() == task.intervals() == {}
    task.predictions = images(*[True, False] * 5)
    assert task.calibration() == {"ece": 0.4}
    task.temperature = 2.0
    assert task.calibration() == {"ece": 0.4, "ece_scaled": 0.0, "temperature": 2.0}


def test_metrics_that_are_not_measured_and_those_of_ones_own_have_no_interval(task):
    task.test_metrics.add_metrics({"mine": MulticlassRecall(3)})
    task.predictions = images(*[True, False] * 5)
    assert set(task.intervals()) == {"accuracy", "f1"}  # no top5 of three classes
