"""Where a training is within its images, for a checkpoint: the same place for any number of processes."""

from __future__ import annotations

from collections.abc import Mapping

from bbframe.data.batch_order import TrainOrder


def position(order: TrainOrder, done: int, batch_size: int, global_batch: int, taken: int) -> dict[str, int]:
    """What a checkpoint says once `done` batches are handed out in every process.

    `images` and `epoch_images` are those that all processes have together; an epoch takes the first `taken` batches.
    `global_batch` is what a step should have; `batch_size`, `processes` and `parts` say who took it.
    """
    step, part = divmod(done, order.parts)
    return {
        "images": step * order.step_images + part * order.step_images // order.parts,
        "epoch_images": len(order) // order.parts * order.step_images,
        "global_batch": global_batch,
        "batch_size": batch_size,
        "processes": order.world,
        "parts": order.parts,
        "taken": taken,
    }


def batches_done(state: Mapping[str, int], order: TrainOrder, within: bool) -> int:
    """How many batches of `order` are behind the position of a checkpoint, which may count batches alone.

    On another number of processes the images count. Raises ValueError for a position within an epoch that is another
    one now; `within` says that the training stands in the middle of an epoch whatever the position.
    """
    now = len(order)
    if "images" not in state:
        done, then = state["batches"], state["epoch_batches"]
    else:
        step_images = min(state["global_batch"], state["epoch_images"])
        then = state["epoch_images"] // step_images * state["parts"]
        step, rest = divmod(state["images"], step_images)
        done = step * state["parts"] + rest * state["parts"] // step_images
        if state["processes"] != order.world and order.step_images == step_images:
            done, then = step * order.parts + rest * order.parts // step_images, then // state["parts"] * order.parts
    if then != now and (done % then or within):
        raise ValueError(
            f"data: the checkpoint comes from epochs of {then} batches, and an epoch now has {now}; resume"
            " with the images and the data.batch_size of that run, or from the end of an epoch"
        )
    return done if then == now else done // then * now
