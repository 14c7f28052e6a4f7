"""What training sees is a function of (seed, epoch, index): with any number of workers, and after any interruption."""

import functools
import os
import pickle
import time

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from PIL import Image

from bbframe.data.batch_loader import BatchLoader, Skipped
from bbframe.data.batch_order import TrainOrder, eval_order
from bbframe.data.data_module import ImageDataModule
from bbframe.data.images.image_batches import ImageBatches
from bbframe.data.images.image_options import AugmentOptions, ImageDataOptions
from bbframe.data.images.image_transforms import eval_transform
from bbframe.data.seeds import derive, torch_seed
from bbframe.preprocessing import Preprocessing
from bbframe.schema import parse
from tests.data.helpers import build, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's use of torch
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty"),  # of course not: we resume
]

RANDOM = {"crop_scale": [0.5, 1.0], "degrees": 20.0, "auto_augment": "randaugment", "mixup": 0.2}


class Noise:
    """Images of noise, in memory."""

    def __init__(self, count):
        self.labels = [i % 2 for i in range(count)]

    def read(self, index):
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 12, 3), np.uint8))

    def name(self, index):
        return str(index)


def noise(batch_size=4, num_workers=0, seed=1, **augment):
    """18 training images, which make 4 batches, and 6 for validation."""
    augment = parse(AugmentOptions, RANDOM | augment, "augment")
    options = ImageDataOptions(name="painted", batch_size=batch_size, num_workers=num_workers, augment=augment)
    parts = {"train": Noise(18), "val": Noise(6)}
    preprocessing = Preprocessing(size=(12, 12))
    return ImageDataModule(options, parts, ["even", "odd"], seed=seed, preprocessing=preprocessing, num_channels=3)


def epochs(count=2, **options):
    loader = noise(**options).train_dataloader()
    return [[(batch["index"].tolist(), batch["image"], batch["label"]) for batch in loader] for _ in range(count)]


def same(first, second):
    return all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_repeat_with_any_number_of_workers(num_workers):
    torch.manual_seed(num_workers)
    assert same(epochs(), epochs(num_workers=num_workers))


def test_epochs_differ_and_so_do_seeds():
    first, second = epochs()
    assert sorted(i for batch in first for i in batch[0]) != [i for batch in first for i in batch[0]]
    assert first[0][0] != second[0][0]
    assert not same([first], epochs(1, seed=2))


def test_loading_leaves_the_random_numbers_of_training_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epochs(1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_image_is_augmented_anew_each_epoch():
    first, second = epochs(mixup=0.0)
    seen = [
        {i: image for index, images, _ in epoch for i, image in zip(index, images, strict=True)}
        for epoch in (first, second)
    ]
    both = seen[0].keys() & seen[1].keys()
    assert len(both) > 10
    assert not any(torch.equal(seen[0][i], seen[1][i]) for i in both)


@pytest.mark.parametrize(
    ("count", "batch_size", "size", "batches"), [(10, 4, 4, 2), (9, 4, 4, 2), (3, 4, 3, 1), (4, 4, 4, 1)]
)
def test_training_batches_are_full(count, batch_size, size, batches):
    order = TrainOrder(count, batch_size, seed=0)
    assert [len(batch) for batch in order] == [size] * batches == [size] * len(order)


@pytest.mark.parametrize("count", [10, 23, 64])
def test_devices_share_an_epoch(count):
    orders = [list(TrainOrder(count, 4, 0, rank, 2)) for rank in range(2)]
    assert len(orders[0]) == len(orders[1])
    keys = [key for order in orders for batch in order for key in batch]
    assert len(set(keys)) == len(keys) == count // 8 * 8
    evals = [key for rank in range(2) for batch in eval_order(count, 4, rank, 2) for key in batch]
    assert sorted(evals) == [(0, i) for i in range(count)]


def test_epochs_follow_one_another_wherever_an_iteration_begins():
    order = TrainOrder(10, 3, seed=0)
    row = []
    for order.first in (0, 3, 6):
        row += list(order)
    assert [batch[0][0] for batch in row] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for order.first in range(7):
        assert list(order) == row[order.first : order.first + 3]


def test_fewer_images_than_devices_are_refused():
    with pytest.raises(ValueError, match=r"3 training images cannot occupy 4 devices; lower trainer.devices"):
        TrainOrder(3, 1, 0, 0, 4)


def test_every_image_is_evaluated_once_and_in_order():
    data = build(batch_size=100)
    for _ in range(2):
        index = [i for batch in data.val_dataloader() for i in batch["index"].tolist()]
        assert index == list(range(data.counts["val"]))


def test_seeds_depend_on_every_part():
    assert len({derive(*parts) for parts in [(1, 2), (2, 1), (12,), ("1", 2), (1, 2, 0)]}) == 5
    assert derive(1, "order", 2) == 2739087069771477911
    with torch_seed(7):
        first = torch.rand(1)
    with torch_seed(7):
        assert torch.equal(first, torch.rand(1))


def test_a_dataset_travels_to_a_spawned_worker():
    batches = noise().train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(batches))
    assert torch.equal(copy.__getitems__([(3, 5)])["image"], batches.__getitems__([(3, 5)])["image"])


class Hanging:
    labels = [0, 1]

    def read(self, index):
        time.sleep(60)

    def name(self, index):
        return str(index)


@pytest.mark.long
def test_a_worker_that_hangs_is_an_error():
    batches = ImageBatches(Hanging(), eval_transform(Preprocessing(), 3), torch.zeros(3), torch.ones(3))
    loader = BatchLoader(batches, [[(0, 0)]], Skipped(0), num_workers=1, timeout=1)
    with pytest.raises(ValueError, match=r"1 workers gave no batch for 1 s; a slow disk needs a larger data.timeout"):
        next(iter(loader))


class Net(lightning.LightningModule):
    """The smallest classifier, which keeps the order of the images that it was trained on."""

    def __init__(self, log):
        super().__init__()
        self.net = torch.nn.Linear(3 * 12 * 12, 2)
        self.log_to = log

    def training_step(self, batch, batch_idx):
        self.log_to.append((self.global_step, batch["index"].tolist()))
        return torch.nn.functional.cross_entropy(self.net(batch["image"].flatten(1)), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", torch.nn.functional.cross_entropy(self.net(batch["image"].flatten(1)), batch["label"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Stop(Callback):
    """Pull the plug after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


BATCHES = 4  # an epoch's
SAVINGS = {
    "every 3 steps": {"every_n_train_steps": 3},
    "every step": {"every_n_train_steps": 1},
    "end of epoch": {"save_on_train_epoch_end": True},
    "after validation": {"save_on_train_epoch_end": False},
}


@functools.cache
def uninterrupted(trainer_options):
    """The final weights and the log of a run that nothing disturbs, from `dict.items()` of trainer options."""
    return fit(None, {}, dict(trainer_options))


def fit(folder, options, trainer_options, saving=None, stop=None, ckpt_path=None):
    """Train; returns the final weights and the log of what was trained on."""
    torch.manual_seed(0)
    log, callbacks = [], []
    if saving:
        callbacks.append(ModelCheckpoint(folder, save_last=True, **SAVINGS[saving]))
    if stop:
        callbacks.append(Stop(stop))
    net = Net(log)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(saving),
        callbacks=callbacks,
        **trainer_options,
    )
    try:
        trainer.fit(net, noise(**options), ckpt_path=ckpt_path)
    except (KeyboardInterrupt, SystemExit):
        assert stop
    return torch.cat([p.detach().flatten() for p in net.parameters()]), log


@pytest.mark.parametrize(
    ("saving", "stop", "limits"),
    [
        ("every 3 steps", 4, {}),
        ("every 3 steps", 7, {}),
        ("every step", BATCHES, {}),
        ("every step", BATCHES + 2, {}),
        ("every step", 6, {"limit_train_batches": 3}),
        ("every step", 7, {"limit_train_batches": 3}),
        ("end of epoch", BATCHES + 2, {}),
        ("end of epoch", 5, {"limit_train_batches": 3}),
        ("after validation", BATCHES + 1, {}),
        ("after validation", BATCHES + 3, {"val_check_interval": 2}),
        ("every step", 6, {"val_check_interval": 2}),
        ("every step", 6, {"limit_val_batches": 0}),
        ("end of epoch", 6, {"limit_val_batches": 0}),
    ],
)
@pytest.mark.parametrize(
    ("num_workers", "end"), [(0, {"max_epochs": 3}), (0, {"max_steps": 9}), (2, {"max_epochs": 3})]
)
def test_a_resumed_run_repeats_the_uninterrupted_one(saving, stop, limits, end, num_workers, tmp_path):
    options = {"num_workers": num_workers}
    whole, whole_log = uninterrupted(tuple((limits | end).items()))
    _, log = fit(tmp_path, options, limits | end, saving, stop)
    again, again_log = fit(tmp_path, options, limits | end, saving, ckpt_path=tmp_path / "last.ckpt")
    assert 0 < len(again_log) < len(whole_log)
    assert again_log == whole_log[-len(again_log) :]
    assert log == whole_log[: len(log)]
    assert torch.equal(again, whole)


def test_reloading_the_loader_changes_nothing():
    whole, log = uninterrupted((("max_epochs", 3),))
    again, again_log = fit(None, {}, {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1})
    assert again_log == log
    assert torch.equal(again, whole)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_testing_a_checkpoint_leaves_the_next_training_alone(tmp_path):
    fit(tmp_path, {}, {"max_epochs": 1}, "every 3 steps")
    data, log = noise(), []
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=3)
    trainer.validate(Net(log), data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    data.trainer = None
    assert next(iter(data.train_dataloader()))["index"].tolist() == uninterrupted((("max_epochs", 3),))[1][0][1]


def test_resuming_with_other_batches_is_refused(tmp_path):
    fit(tmp_path, {}, {"max_epochs": 2}, "every 3 steps", 4)
    with pytest.raises(ValueError, match=r"epochs of 4 batches, and an epoch now has 9; resume with"):
        fit(tmp_path, {"batch_size": 2}, {"max_epochs": 2}, "every 3 steps", ckpt_path=tmp_path / "last.ckpt")


def test_an_evaluation_in_lightning_leaves_broken_images_out(tmp_path):
    """A whole batch of broken images at the end, and some in between."""
    for name in ("cat", "dog"):
        for part, count in (("train", 4), ("val", 5)):
            for i in range(count):
                write(tmp_path / part / name / f"{i}.png", i)
    for path in ("cat/1", "dog/3", "dog/4"):
        file = tmp_path / "val" / f"{path}.png"
        file.write_bytes(file.read_bytes()[:200])
    seen = []

    class Watch(Net):
        def validation_step(self, batch, batch_idx):
            seen.extend(batch["index"].tolist())
            super().validation_step(batch, batch_idx)

    options = {"batch_size": 2, "image_size": 12, "on_error": "skip", "verify": False}
    data = build("image_folder", root=str(tmp_path), **options)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.validate(Watch([]), data, verbose=False)
    assert seen == [0, 2, 3, 4, 5, 6, 7]
    assert {os.path.basename(os.path.dirname(name)) for name in data.skipped} == {"cat", "dog"}
    assert "val/loss" in trainer.callback_metrics


@pytest.mark.parametrize("gpu", [False, True])
def test_who_normalises_is_decided_by_the_process_that_trains(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    loader = noise().train_dataloader()
    assert loader._inner().pin_memory == gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not gpu)  # as in a forked worker
    batch = loader.dataset.__getitems__([(0, 0), (0, 1)])
    assert batch["image"].dtype == (torch.float32 if gpu else torch.uint8)
    assert loader.dataset.unpack(batch)["image"].dtype == torch.float32
