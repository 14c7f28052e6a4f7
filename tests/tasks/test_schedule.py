"""The learning rate of every step of a training is the one that the formula gives."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from bbframe.heads import ClassifierOptions
from bbframe.tasks.classification import Classification
from bbframe.tasks.optimizer_options import AdamWOptions, CosineOptions
from bbframe.tasks.task_options import ClassificationOptions
from tests.tiny import tiny

BATCHES, LR, FINAL = 19, 0.001, 0.1

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]


class Rates(pl.Callback):
    """The learning rate of every step of the optimiser."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def formula(step, warmup, total):
    """A linear rise, then half a cosine down to a tenth."""
    if step < warmup:
        return LR * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    return LR * (FINAL + (1 - FINAL) * (1 + math.cos(math.pi * progress)) / 2)


def rates(warmup_epochs, **options):
    torch.manual_seed(0)
    task = Classification(
        ClassificationOptions(),
        tiny("convnextv2"),
        ["a", "b"],
        head=ClassifierOptions(),
        optim=AdamWOptions(lr=LR),
        schedule=CosineOptions(warmup_epochs=warmup_epochs, final=FINAL),
    )
    items = [{"image": torch.randn(3, 32, 32), "label": torch.tensor(i % 2)} for i in range(BATCHES)]
    seen = Rates()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "limit_val_batches": 0,
    }
    trainer = pl.Trainer(**{**quiet, "enable_checkpointing": False, **options}, callbacks=[seen])
    trainer.fit(task, DataLoader(items, batch_size=1))
    return seen.seen


@pytest.mark.parametrize(
    ("warmup_epochs", "options", "warmup", "total"),
    [
        (1, {"max_epochs": 3}, 19, 57),
        (0.5, {"max_epochs": 2}, 10, 38),
        (0, {"max_epochs": 2}, 0, 38),
        (1, {"max_epochs": -1, "max_steps": 50}, 19, 50),
        (1, {"max_epochs": 10, "max_steps": 40}, 19, 40),
        (1, {"max_epochs": 2, "max_steps": 100}, 19, 38),
        (1, {"max_epochs": 3, "accumulate_grad_batches": 4}, 5, 15),
        (2, {"max_epochs": -1, "max_steps": 12, "accumulate_grad_batches": 4}, 10, 12),
        (1, {"max_epochs": 3, "limit_train_batches": 7}, 7, 21),
        (1, {"max_epochs": 2, "limit_train_batches": 0.5}, 9, 18),
        (3, {"max_epochs": 4, "max_steps": 20}, 20, 20),
    ],
)
def test_every_step_has_the_rate_of_the_formula(warmup_epochs, options, warmup, total):
    seen = rates(warmup_epochs, **options)
    assert seen == pytest.approx([formula(step, warmup, total) for step in range(total)])
