"""Classification under Lightning's own loop."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bbframe.heads import ClassifierOptions
from bbframe.tasks.classification import Classification
from bbframe.tasks.optimizer_options import AdamWOptions, CosineOptions
from bbframe.tasks.task_options import ClassificationOptions
from tests.tiny import names, tiny


class Watched(Classification):
    """Notes, in every training step, which of its modules are in training mode."""

    def training_step(self, batch, batch_idx):
        self.seen = [*getattr(self, "seen", []), {n: m.training for n, m in self.backbone.named_modules()}]
        return super().training_step(batch, batch_idx)


def watched(net, **options):
    return Watched(
        ClassificationOptions(**options),
        net,
        ["a", "b", "c"],
        head=ClassifierOptions(),
        optim=AdamWOptions(),
        schedule=CosineOptions(),
    )


def fit(task, net, soft=False, epochs=2):
    side = 2 * net.config.stages[-1].stride
    images = torch.randn(8, net.config.num_channels, side, side, generator=torch.Generator().manual_seed(0))
    hard = [{"image": x, "label": torch.tensor(i % 3), "index": torch.tensor(i)} for i, x in enumerate(images)]
    mixed = [{**item, "label": torch.eye(3)[item["label"]] * 0.7 + 0.1} for item in hard]
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, DataLoader(mixed if soft else hard, batch_size=4), DataLoader(hard, batch_size=4))
    trainer.test(task, DataLoader(hard, batch_size=4), verbose=False)
    return trainer


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
]


@pytest.mark.parametrize("name", names())
def test_a_loaded_backbone_trains_in_training_mode_and_its_frozen_part_never_does(name):
    net = tiny(name).eval()  # as from_pretrained gives it
    task = watched(net, freeze=1)
    fit(task, net)
    assert len(task.seen) == 4
    for modes in task.seen:
        assert modes[f"stages.{len(net.stages) - 1}"]
        assert not modes["stem"]
        assert not modes["stages.0"]


def test_what_a_test_leaves_behind_adds_up():
    net = tiny("resnet")
    task = watched(net)
    trainer = fit(task, net, soft=True)
    rows = task.predictions
    assert [row[0] for row in rows] == list(range(8))
    right = sum(row.label == row.predicted for row in rows)
    assert trainer.callback_metrics["test/accuracy"] == pytest.approx(right / 8)
    assert int(task.confusion.sum()) == 8
    assert int(task.confusion.diagonal().sum()) == right
    assert all(0 < row.true_probability <= row.probability <= 1 for row in rows)
    assert all((row.true_probability == row.probability) is (row.label == row.predicted) for row in rows)
    mean = sum(row.loss for row in rows) / 8
    assert trainer.callback_metrics["test/loss"] == pytest.approx(mean, rel=1e-5)


def test_top5_comes_with_six_classes():
    few, many = (
        Classification(
            ClassificationOptions(),
            tiny("resnet"),
            [str(i) for i in range(count)],
            head=ClassifierOptions(),
            optim=AdamWOptions(),
            schedule=CosineOptions(),
        )
        for count in (5, 6)
    )
    assert "top5" not in few.val_metrics
    assert "top5" in many.val_metrics


def numpy_metrics(scores, labels):
    """Accuracy, top-5 accuracy and the mean F1 of the classes that occur, from scores (N, K) and labels (N,)."""
    order = np.argsort(-scores, axis=1)
    predicted = order[:, 0]
    f1 = []
    for k in np.unique(np.concatenate([labels, predicted])):
        right = np.sum((labels == k) & (predicted == k))
        f1.append(2 * right / (np.sum(labels == k) + np.sum(predicted == k)))
    top5 = np.any(order[:, :5] == labels[:, None], axis=1)
    return {"accuracy": np.mean(predicted == labels), "top5": top5.mean(), "f1": np.mean(f1)}


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("first", ["all right", "all within five", "all wrong"])
def test_metrics_are_those_of_numpy_whatever_the_first_batch_is_like(first, part):
    """torchmetrics shares states between metrics that agree after the first batch, unless it is told not to."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, (4, 16))
    scores = random.normal(size=(4, 16, 8)).astype("float32")
    ranks = {"all right": 0, "all within five": 3, "all wrong": 7}
    for row, label in zip(scores[0], labels[0], strict=True):  # the label takes the place of that rank
        place = np.argsort(-row)[ranks[first]]
        row[[place, label]] = row[[label, place]]
    task = Classification(
        ClassificationOptions(),
        tiny("resnet"),
        [str(i) for i in range(8)],
        head=ClassifierOptions(),
        optim=AdamWOptions(),
        schedule=CosineOptions(),
    )
    metrics = {"val": task.val_metrics, "test": task.test_metrics}[part]
    for of_batch, truth in zip(scores, labels, strict=True):
        metrics.update(torch.from_numpy(of_batch), torch.from_numpy(truth))
    expected = numpy_metrics(scores.reshape(-1, 8), labels.reshape(-1))
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {f"{part}/{name}": value for name, value in expected.items()}
    )
