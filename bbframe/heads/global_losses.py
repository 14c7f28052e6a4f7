"""Detection losses as means over the images of all processes, and samples of boxes that depend on the image alone.

torchvision divides by what one process holds: foreground places, sampled anchors or sampled boxes. The mean of such
losses over the processes is not the loss of the whole batch, because a process with few objects weighs each of them
more. detectron2 divides by the mean count of the processes, as here. With one process nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler


def count_factors(counts: Sequence[Tensor | int], images: int, device: torch.device) -> list[Tensor | float]:
    """By what losses that are divided by this process's `counts`, or by 1, are multiplied.

    The mean of the results over the processes, weighed by their `images`, then is the sum of the losses of all images
    divided by the count of all. Every process must call this in the same step.
    """
    if not _several_processes():
        return [1.0] * len(counts)
    local = torch.stack([torch.as_tensor(x, dtype=torch.float64, device=device) for x in (*counts, images)])
    total = local.clone()
    torch.distributed.all_reduce(total)
    factors = local[:-1].clamp(min=1) / total[:-1].clamp(min=1) * (total[-1] / images)
    return [*factors.float()]


def _several_processes() -> bool:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_world_size() > 1


class ImageSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler of positive and negative boxes, whose draw for an image depends on the image's seed alone.

    `seeds` has one for each image of the next call; without it the draws are torch's. After a call `positives` and
    `sampled` are the numbers of boxes that were drawn in all images.
    """

    seeds: Sequence[int] | None = None
    positives = sampled = 0

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.positives = self.sampled = 0
        for image, matched in enumerate(matched_idxs):
            generator = None if self.seeds is None else torch.Generator().manual_seed(self.seeds[image])
            left = self.batch_size_per_image
            most = int(left * self.positive_fraction)
            for kind, chosen in enumerate((matched >= 1, matched == 0)):
                places = torch.where(chosen)[0]
                count = min(len(places), left if kind else most)
                device = places.device if generator is None else torch.device("cpu")
                drawn = torch.randperm(len(places), generator=generator, device=device)[:count]
                mask = torch.zeros_like(matched, dtype=torch.uint8)
                mask[places[drawn.to(places.device)]] = 1
                masks[kind].append(mask)
                left -= count
                self.sampled += count
                self.positives += 0 if kind else count
        return masks
