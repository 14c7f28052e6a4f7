"""The base of every data module: images in, batches out, resumable to the bit."""

from __future__ import annotations

import copy
import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from bbframe.data.batch_loader import Batches, BatchLoader, ImageBatches, Images, TrainLoader
from bbframe.data.batch_order import TrainOrder, eval_order
from bbframe.data.exclusion import Exclusion, apply_exclusion, read_exclusion
from bbframe.data.faults import Skipped
from bbframe.data.images.image_options import ImageDataOptions
from bbframe.data.images.image_transforms import batch_mix, eval_transform, train_transform
from bbframe.data.loading_options import LoadingOptions
from bbframe.data.pixels import settle
from bbframe.data.train_position import batches_done, position
from bbframe.imaging.image_fit import Fit
from bbframe.preprocessing import Preprocessing

Loader = TypeVar("Loader", bound=BatchLoader)
Module = TypeVar("Module", bound="DataModule")


class DataModule(lightning.LightningDataModule):
    """Loaders of batches, whatever their task; `index` in them is an image's place within "train", "val" or "test".

    Without test images the validation images stand in: `test_part` says which. The order of training images is a
    function of (seed, epoch), their augmentation of (seed, epoch, index). A checkpoint holds the position, so that a
    resume, also in the middle of an epoch, repeats what would have happened.

    Attributes: `class_names`, `num_classes`, `image_size` (height, width), `mean` and `std` (one a channel), `counts`
    (images a part), `skipped`: the images left out so far, {name: reason}, and `assumed`: what was assumed of others,
    {what: names}, `exclusion`: what `data.exclude` left out.
    """

    _train_transform: nn.Module
    _eval_transform: nn.Module

    def __init__(
        self,
        options: LoadingOptions,
        parts: Mapping[str, Images],
        class_names: Sequence[str],
        *,
        seed: int,
        preprocessing: Preprocessing,
        num_channels: int,
        stride: int = 1,
        skipped: Skipped | None = None,
        exclusion: Exclusion | None = None,
    ):
        """`preprocessing` decides what the options leave open; `stride` belongs to the smallest map.

        Without `skipped` no unreadable image is put up with. `exclusion` is what `options.exclude` says, if that was
        read before. Raises ValueError unless there are 1 or 3 channels, and for fixes that cannot be applied.
        """
        super().__init__()
        self.options, self.seed = options, seed
        self.prepare(preprocessing, num_channels, stride)
        self._errors = skipped or Skipped(0)
        self.exclusion = exclusion or read_exclusion(options.exclude)
        self.exclusion.check_sha256(options.exclude_sha256)
        self.parts = apply_exclusion(self.exclusion, parts, class_names, self._errors)
        self.class_names, self.num_classes = list(class_names), len(class_names)
        self.counts = {name: len(part.labels) for name, part in self.parts.items()}
        self.test_part = "test" if "test" in parts else "val"
        self.skipped, self.assumed = self._errors.images, self._errors.assumed
        alike: dict[str, list[str]] = {}
        for name in class_names:
            composed = unicodedata.normalize("NFC", name)  # an accent may be a character of its own
            alike.setdefault("".join(composed.split()).casefold(), []).append(name)
        what = "groups of classes whose names differ in case or spaces alone, or not to the eye"
        self._errors.assume((what, " and ".join(map(repr, group))) for group in alike.values() if len(group) > 1)
        self._loaders: list[BatchLoader] = []
        self._train: TrainLoader | None = None
        self._resume: dict[str, int] = {}
        self.global_batch: int | None = None  # images of an optimizer step; None: as the options and the trainer say

    def prepare(self, preprocessing: Preprocessing, num_channels: int, stride: int) -> None:
        """Prepare images for a network, by its `preprocessing` where the options leave it open.

        A data set that always prepares images otherwise says so by overriding `adjusted`. Raises ValueError as the
        constructor does.
        """
        preprocessing = self.adjusted(preprocessing)
        sized = replace(preprocessing, size=self.options.sides(preprocessing.size, stride))
        self.preprocessing = settle(self.options, sized, num_channels)
        self.image_size = self.preprocessing.size
        self.mean, self.std = self.preprocessing.mean, self.preprocessing.std
        self._make_transforms(num_channels)

    def found_options(self) -> dict[str, Any]:
        """Options as they were found, which a record keeps: a prediction needs the bits, a rerun the same fixes."""
        bits = getattr(self.options, "bits", None)
        found = {} if bits is None else {"bits": bits}
        return {**found, **({"exclude_sha256": self.exclusion.sha256} if self.exclusion.file else {})}

    def adjusted(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing of a checkpoint as this data set applies it."""
        return preprocessing

    def _make_transforms(self, num_channels: int) -> None:
        """Make the transforms of training and evaluation, by `options` and `preprocessing`."""

    def prepared_for(self: Module, preprocessing: Preprocessing, num_channels: int, stride: int) -> Module:
        """A data module over the same images that prepares them for another network; nothing is read anew."""
        other = self.separate()
        other.prepare(preprocessing, num_channels, stride)
        return other

    @property
    def batch_size(self) -> int:
        """Images in a batch, once it is a number."""
        assert self.options.batch_size != "auto"
        return int(self.options.batch_size)

    def separate(self: Module, **changes: int) -> Module:
        """A data module over the same images, with `changes` of its options.

        Its loaders and its position in the training are its own.
        """
        other = copy.copy(self)
        other._loaders, other._train, other._resume, other.trainer = [], None, {}, None
        other.global_batch = None
        other.options = replace(self.options, **changes)  # type: ignore[arg-type]
        return other

    def train_dataloader(self) -> TrainLoader:
        """Raises ValueError when a run is resumed within an epoch that had other images or batches."""
        order = TrainOrder(self.counts["train"], self.batch_size, self.seed, *self._place(), self._step_images())
        loader = self._loader(TrainLoader, "train", order)
        if self._resume:
            loader.done = batches_done(self._resume, order, within=self._within_epoch())
        elif self._train and self.trainer and self.trainer.current_epoch:  # reloaded in the middle of a training
            loader.done = self._train.done
        self._resume, self._train = {}, loader
        return loader

    def val_dataloader(self, part: str = "val") -> BatchLoader:
        order = eval_order(self.counts[part], self.batch_size, *self._place())
        return self._loader(BatchLoader, part, order)

    def test_dataloader(self) -> BatchLoader:
        return self.val_dataloader(self.test_part)

    def predict_dataloader(self) -> BatchLoader:
        """The validation images: on their scores a temperature is fitted."""
        return self.val_dataloader()

    def loader_of(self, part: str, indices: Sequence[int]) -> BatchLoader:
        """The batches of some images of a part, in the order given, as an evaluation sees them."""
        size = 64 if self.options.batch_size == "auto" else self.batch_size
        keys = [(0, index) for index in indices]
        return self._loader(BatchLoader, part, [keys[i : i + size] for i in range(0, len(keys), size)])

    def source(self, part: str, index: int) -> str:
        """The name of an image, such as its path."""
        return self.parts[part].name(index)

    def fingerprint(self, part: str, indices: Sequence[int]) -> str:
        """The SHA-256 of images' names and true classes, in the order given: equal for the same test.

        Where the files lie is no part of it: paths count from the root of the data.
        """
        images, digest = self.parts[part], hashlib.sha256()
        root = f"{getattr(images, 'root', '')}{os.sep}"
        for index in indices:
            classes = [self.class_names[label] for label in np.ravel(images.labels[index])]
            line = "\t".join([images.name(index).removeprefix(root), *classes])
            digest.update(f"{line}\n".encode(errors="backslashreplace"))
        return digest.hexdigest()

    def state_dict(self) -> dict[str, int]:
        """The position in the training and what a step is made of, for Lightning's checkpoint."""
        if self._train is None:
            return {}
        taken = self.trainer.num_training_batches if self.trainer else len(self._train)
        return position(self._train.order, self._train.done, self.batch_size, self._step_images(), int(taken))

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:  # testing restores checkpoints too
            self._resume = state_dict

    def take_back(self, batches: int) -> None:
        """Count the latest batches as not handed out: no step was taken with them."""
        if self._train is not None:
            self._train.done -= batches

    def teardown(self, stage: str) -> None:
        """End the workers of all loaders, as `on_exception` does when a run fails."""
        for loader in self._loaders:
            loader.close(kill=stage == "exception")
        self._loaders.clear()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("exception")

    def _loader(self, kind: type[Loader], part: str, order: Any) -> Loader:
        batches = self._batches(part, train=kind is TrainLoader)
        in_step = kind is not TrainLoader and self.processes > 1
        loader = kind(batches, order, self._errors, self._num_workers(), self.options.timeout, in_step)
        self._loaders.append(loader)
        return loader

    def _batches(self, part: str, train: bool) -> Batches:
        """What the loaders of a part read, for training or for an evaluation."""
        raise NotImplementedError

    def _processing(self, train: bool) -> tuple[nn.Module, Tensor, Tensor, int | None]:
        """The fields of `Batches` after the first."""
        transform = self._train_transform if train else self._eval_transform
        return transform, torch.tensor(self.mean), torch.tensor(self.std), self.seed if train else None

    @property
    def processes(self) -> int:
        """Among how many processes the images are dealt out."""
        return self._place()[1]

    def _place(self) -> tuple[int, int]:
        """This process's rank, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _step_images(self) -> int:
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self.global_batch or self.batch_size * self.processes * accumulated

    def _within_epoch(self) -> bool:
        epoch: Any = self.trainer.fit_loop.epoch_progress.current if self.trainer else None
        return epoch is None or epoch.ready != epoch.processed

    def _num_workers(self) -> int:
        if self.options.num_workers is not None:
            return self.options.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, cores)


class ImageDataModule(DataModule):
    """Batches {"image": (B, C, H, W) float, normalised; "label": (B,) long; "index": (B,) long}.

    With mixup or cutmix the labels of training batches are (B, num_classes) probabilities.
    """

    def __init__(self, options: ImageDataOptions, *args: Any, num_channels: int, **settings: Any):
        """As `DataModule`."""
        super().__init__(options, *args, num_channels=num_channels, **settings)
        self._mix = batch_mix(options.augment, self.num_classes)

    def _make_transforms(self, num_channels: int) -> None:
        options: Any = self.options
        self._eval_transform = eval_transform(self.preprocessing, num_channels)
        self._fit = Fit(self.preprocessing)
        self._train_transform = train_transform(self.preprocessing, num_channels, options.augment, options.transforms)

    def picture(self, part: str, index: int) -> Tensor:
        """The image as an evaluation sees it, before normalisation: (C, H, W) uint8."""
        return self._eval_transform(self.parts[part].read(index))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """What an evaluation sees of an image of a (width, height): left, top, right, bottom, as shares of it."""
        return self._fit.seen(size)

    def _batches(self, part: str, train: bool) -> ImageBatches:
        return ImageBatches(self.parts[part], *self._processing(train), mix=self._mix if train else None)
