"""Each image once an epoch over all processes and workers, by (seed, epoch) alone, from a few shards at a time."""

import threading
from collections import Counter

import lightning
import numpy as np
import pytest
import torch

from bbframe.data.batch_order import TrainOrder
from bbframe.data.shards.shard_order import FetchingAhead, windowed_permutation
from tests.data.helpers import build
from tests.data.shards.helpers import same_batches, sharded

SHARD = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_a_window_the_order_is_that_of_any_data_set():
    assert torch.equal(windowed_permutation(SHARD, None, generator()), torch.randperm(300, generator=generator()))


@pytest.mark.parametrize("window", [1, 3, 10, 99])
def test_a_permutation_needs_a_window_of_shards_at_a_time(window):
    order = windowed_permutation(SHARD, window, generator()).numpy()
    assert sorted(order) == list(range(300))
    for start in range(0, 300, 30 * window):
        group = SHARD[order[start : start + 30 * window]]
        assert len(np.unique(group)) <= window
    other = windowed_permutation(SHARD, window, generator(1)).numpy()
    assert (order != other).any()
    assert SHARD[order[0]] != SHARD[other[0]] or window >= 10


def test_a_window_mixes_its_shards():
    order = SHARD[windowed_permutation(SHARD, 5, generator()).numpy()]
    assert (np.diff(order) != 0).mean() > 0.6


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_image_comes_once_an_epoch_over_all_processes(world):
    seen = Counter()
    for rank in range(world):
        order = TrainOrder(300, 10, 5, rank, world, permutation=lambda draw: windowed_permutation(SHARD, 2, draw))
        seen.update(key for batch in order for key in batch)
    assert set(seen.values()) == {1}
    assert len(seen) == 300 // (10 * world) * 10 * world


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return sharded(build("digits"), "digits", tmp_path_factory.mktemp("order") / "set", shard_bytes=300_000)


def load(place, **options):
    return build("digits", shards=place, shard_window=2, augment={"degrees": 20.0}, **options)


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_batches_are_the_same_with_any_number_of_workers(place, num_workers):
    alone, many = load(place), load(place, num_workers=num_workers)
    assert same_batches(alone.train_dataloader(), many.train_dataloader())
    seen = Counter(i for batch in many.val_dataloader() for i in batch["index"].tolist())
    assert seen == dict.fromkeys(range(many.counts["val"]), 1)
    many.teardown("fit")


class Remember(lightning.LightningModule):
    """Keeps what each step sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append((batch["index"].tolist(), batch["image"].sum().item()))
        return (self.weight * batch["image"].mean()).sum()

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0)])
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_resume_goes_on_to_the_bit_with_another_number_of_workers(place, tmp_path, first, second):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}

    def train(steps, workers, start=None):
        model, data = Remember(), load(place, num_workers=workers)
        trainer = lightning.Trainer(max_steps=steps, enable_checkpointing=False, limit_val_batches=0, **quiet)
        trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
        return model, trainer

    whole, _ = train(29, first)
    begun, trainer = train(23, first)  # within the second epoch of 19 batches
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    rest, _ = train(29, second, tmp_path / "x.ckpt")
    assert begun.seen + rest.seen == whole.seen


def test_shards_are_fetched_before_they_are_read():
    fetched, read = [], []
    order = TrainOrder(300, 10, 5, permutation=lambda draw: windowed_permutation(SHARD, 1, draw))
    done = threading.Event()

    def fetch(number):
        fetched.append(number)
        if len(fetched) == 3:
            done.set()

    ahead = FetchingAhead(order, SHARD, 60, fetch)
    assert len(ahead) == len(order)
    batches = iter(ahead)
    read.append(next(batches))
    assert done.wait(20)
    read += batches
    assert read == list(order)
    first = dict.fromkeys(SHARD[[index for batch in read for _, index in batch]].tolist())
    assert sorted(fetched[:3]) == sorted([*first][:3])
