"""A run that goes on with another number of processes: the same images make each of its optimizer steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl

from bbframe.data.data_module import DataModule
from bbframe.run.checkpoint import LoadedCheckpoint
from bbframe.run.configuration import Configuration

log = logging.getLogger("bbframe")


def saved_position(content: Mapping[str, Any], data: DataModule) -> Mapping[str, int]:
    """Where the training of a checkpoint was, as `train_position.position` says it; empty if it does not."""
    state = content.get(type(data).__qualname__) or {}
    return state if "images" in state else {}


def keep_global_batch(trainer: pl.Trainer, data: DataModule, plan: Configuration, saved: LoadedCheckpoint) -> None:
    """Let a training that goes on from `saved` take its optimizer steps with as many images as that run.

    A process then takes the largest batches up to data.batch_size whose number a step needs, so that epochs, limits
    and intervals hold the same images. On the same number of processes a size that the user has changed counts from
    here on. Raises ValueError where a step has fewer images than there are processes.
    """
    state, processes = saved_position(saved.content, data), trainer.num_devices * trainer.num_nodes
    if not state or (state["processes"] == processes and _sizes(saved.run.config) != _sizes(asdict(plan))):
        return
    images, before = state["global_batch"], state["processes"]
    if state["epoch_images"] < processes or images < processes:
        raise ValueError(
            f"trainer: {processes} processes cannot share the {min(images, state['epoch_images'])} images that "
            f"{saved.path} takes in an optimizer step; start fewer"
        )
    whole = data.batch_size * processes
    accumulated = math.ceil(images / whole)
    parts = math.ceil(min(images, state["epoch_images"]) / whole)
    data.global_batch, trainer.accumulate_grad_batches = images, accumulated
    _keep_limits(trainer, state, parts, whole)
    if before != processes:
        each = images / (processes * accumulated)
        size = f"{each:g}" if each.is_integer() else f"{math.floor(each)} or {math.ceil(each)}"
        log.info(
            "processes %d (was %d): accumulate_grad_batches=%d and batches of %s keep the global batch of %d",
            processes,
            before,
            accumulated,
            size,
            images,
        )


def _sizes(config: Mapping[str, Any]) -> tuple[Any, Any]:
    return config["data"]["batch_size"], config["trainer"]["accumulate_grad_batches"]


def _keep_limits(trainer: Any, state: Mapping[str, int], parts: int, whole: int) -> None:
    """Let limits and intervals that count the batches of a process, of `parts` a step, mean as many images as before.

    `whole` images make a batch of every process in an evaluation.
    """

    def in_steps(batches: int) -> int:
        return math.ceil(batches * parts / state["parts"])

    step_images = min(state["global_batch"], state["epoch_images"])
    if state["taken"] < state["epoch_images"] // step_images * state["parts"]:
        trainer.limit_train_batches = in_steps(state["taken"])
    if isinstance(trainer.val_check_interval, int):
        trainer.val_check_interval = in_steps(trainer.val_check_interval)
    for name in ("limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        limit = getattr(trainer, name)
        if isinstance(limit, int):
            setattr(trainer, name, math.ceil(limit * state["batch_size"] * state["processes"] / whole))


def recount_batches(checkpoint: Mapping[str, Any], data: DataModule) -> None:
    """Count the batches in a checkpoint's loops as this run does, which takes other ones in a step.

    A checkpoint is of a moment between two steps, and the counts may lag by one where it was written.
    """
    state = saved_position(checkpoint, data)
    if not state or data.global_batch is None:
        return
    now = math.ceil(min(data.global_batch, state["epoch_images"]) / (data.batch_size * data.processes))
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for part in (progress["total"], progress["current"]):
        ready = part["ready"]
        part.update({key: ready * now // state["parts"] - (ready - value) for key, value in part.items()})
